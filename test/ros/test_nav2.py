"""The topics for Nav2's semantic segmentation layer pass the checks of the layer itself.

docs/nav2.md configures kiwicampus/semantic_segmentation_layer (branch jazzy). What follows
plays its subscriptions, size checks and choice of one observation for each tile, in slow loops.
"""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from depth_camera import BOX, CENTRE, FOCAL, SIZE, DepthCamera, scene
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2, PointField

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "nav2.md"
SENSOR_DATA = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TOPICS = {"class_image": Image, "confidence_image": Image, "cloud": PointCloud2}
RESOLUTION = 0.05  # of the costmap, in metres


@pytest.fixture
def triples(start_node, client, image_with):
    """Return the messages of one stamp by topic, for each of several images."""
    start_node(depth_wait=3.0, score_threshold=0.3)
    received = {name: {} for name in TOPICS}
    for name, kind in TOPICS.items():

        def store(message, name=name):
            stamp = message.header.stamp
            received[name][stamp.sec, stamp.nanosec] = message

        client.node.create_subscription(kind, f"yolact/{name}", store, SENSOR_DATA)
    camera = DepthCamera(client)
    camera.connect()
    image = image_with({"blue": BOX}, SIZE)

    def complete():
        stamps = set.intersection(*(set(messages) for messages in received.values()))
        return [{name: received[name][stamp] for name in TOPICS} for stamp in sorted(stamps)]

    for _ in range(20):
        camera.send(client.send(image), scene(), "16UC1")
        client.spin_until(lambda: False, 0.2)
        if len(complete()) >= 3:
            break
    assert len(complete()) >= 3
    return complete()


def coordinates(cloud: PointCloud2) -> list[tuple[float, float, float]]:
    """Return x y z of every point in byte order, as a PointCloud2ConstIterator reads them."""
    fields = {field.name: field for field in cloud.fields}
    assert all(fields[axis].datatype == PointField.FLOAT32 for axis in "xyz")
    order = ">" if cloud.is_bigendian else "<"
    data = bytes(cloud.data)
    starts = range(0, cloud.width * cloud.height * cloud.point_step, cloud.point_step)
    return [
        tuple(struct.unpack_from(f"{order}f", data, at + fields[a].offset)[0] for a in "xyz")
        for at in starts
    ]


def observations(triple, *, costs: dict[int, int] | None) -> dict[tuple[int, int], tuple]:
    """Return (class id, confidence) per tile, by the greatest cost or confidence."""
    segmentation, cloud = triple["class_image"], triple["cloud"]
    confidence = triple["confidence_image"].data
    best: dict[tuple[int, int], int] = {}
    for pixel, (x, y, z) in enumerate(coordinates(cloud)):
        if not math.isfinite(z) or not 0.3 < math.dist((x, y, z), (0, 0, 0)) < 5.0:
            continue
        # The transform of an optical frame into one with z up: its x is z, its y is -x.
        tile = math.floor(z / RESOLUTION), math.floor(-x / RESOLUTION)
        if tile not in best:
            best[tile] = pixel
        elif costs is None:
            if confidence[pixel] > confidence[best[tile]]:
                best[tile] = pixel
        elif costs[segmentation.data[pixel]] > costs[segmentation.data[best[tile]]]:
            best[tile] = pixel
    return {tile: (segmentation.data[at], confidence[at]) for tile, at in best.items()}


def test_the_layer_accepts_every_triple_and_finds_the_object_and_the_free_space(triples):
    for triple in triples:
        segmentation, confidence, cloud = (triple[name] for name in TOPICS)
        assert segmentation.encoding == confidence.encoding == "mono8"
        pixels = segmentation.width * segmentation.height
        assert pixels == cloud.width * cloud.height == SIZE[0] * SIZE[1]
        assert (cloud.width, cloud.height) == (segmentation.width, segmentation.height)
        assert len(segmentation.data) >= pixels and len(confidence.data) >= pixels
        assert segmentation.header == confidence.header == cloud.header
    triple = triples[-1]
    for costs in ({0: 0, 1: 254}, None):
        tiles = observations(triple, costs=costs)
        x1, _, x2, _ = BOX
        middle = -((x1 + x2) / 2 - CENTRE) / FOCAL * 0.5
        object_tile = math.floor(0.5 / RESOLUTION), math.floor(middle / RESOLUTION)
        assert tiles[object_tile] == (1, 229), "0.9 of 255"
        wall = [found for (x, _), found in tiles.items() if x * RESOLUTION > 1.5]
        assert len(wall) > 10 and set(wall) == {(0, 178)}, "0.7 of 255"


def test_the_cloud_is_aligned_with_the_pixels_and_labelled_as_the_images(triples):
    triple = triples[-1]
    cloud, metres = triple["cloud"], scene()
    points = coordinates(cloud)
    fields = {field.name: field.offset for field in cloud.fields}
    labels = bytes(triple["class_image"].data)
    confidence = bytes(triple["confidence_image"].data)
    data = bytes(cloud.data)
    for pixel in range(0, len(points), 7):
        x, y, z = points[pixel]
        v, u = divmod(pixel, cloud.width)
        if metres[v, u] == 0:
            assert math.isnan(x) and math.isnan(y) and math.isnan(z)
        else:
            assert z == pytest.approx(metres[v, u])
            assert x * FOCAL / z + CENTRE == pytest.approx(u, abs=1e-3)
            assert y * FOCAL / z + CENTRE == pytest.approx(v, abs=1e-3)
        at = pixel * cloud.point_step
        (class_id,) = struct.unpack_from("<H", data, at + fields["class_id"])
        (score,) = struct.unpack_from("<f", data, at + fields["score"])
        assert class_id == labels[pixel]
        assert round(score * 255) == confidence[pixel] > 0
    assert not cloud.is_dense
    x1, y1, x2, y2 = BOX
    image = np.frombuffer(labels, np.uint8).reshape(SIZE)
    assert (image[y1 + 8 : y2 - 8, x1 + 8 : x2 - 8] == 1).all()
    assert np.count_nonzero(image) == pytest.approx((y2 - y1) * (x2 - x1), rel=0.1)


def test_the_layer_knows_every_label_that_is_configured(start_node, client):
    vision = pytest.importorskip("vision_msgs.msg")
    start_node()
    infos = []
    client.node.create_subscription(vision.LabelInfo, "yolact/label_info", infos.append, LATCHED)
    assert client.spin_until(lambda: infos)
    ids = {label.class_name: label.class_id for label in infos[-1].class_map}
    assert ids == {"background": 0, "blue": 1, "green": 2, "red": 3}


def test_the_page_configures_topics_of_the_node_and_every_class_of_its_model():
    (block,) = re.findall(r"```yaml\n(local_costmap:.*?)```", PAGE.read_text(), re.DOTALL)
    layer = yaml.safe_load(block)["local_costmap"]["local_costmap"]["ros__parameters"]
    layer = layer["semantic_segmentation_layer"]
    source = layer[layer["observation_sources"]]
    topics = {key: value for key, value in source.items() if key.endswith("_topic")}
    assert topics == {
        "segmentation_topic": "/yolact/class_image",
        "confidence_topic": "/yolact/confidence_image",
        "pointcloud_topic": "/yolact/cloud",
        "labels_topic": "/yolact/label_info",
    }
    named = [name for kind in source["class_types"] for name in source[kind]["classes"]]
    bundle = PAGE.parent.parent / "models" / "tabletop" / "model.json"
    classes = json.loads(bundle.read_text())["model"]["classes"]
    assert sorted(named) == sorted(["background", *classes])
