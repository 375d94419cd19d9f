"""The node runs a bundle that reuses features between keyframes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")
torch = pytest.importorskip("torch")

from std_srvs.srv import Trigger

from yolact_ros.export.options import ExportOptions
from yolact_ros.export.to_bundle import export_bundle
from yolact_ros.model.weights.checkpoint import initialise_weights, save_checkpoint
from yolact_ros.model.yolact import Yolact
from yolact_ros.msg import InstanceArray
from yolact_ros.variants import TABLETOP_MODEL


@pytest.fixture(scope="module")
def video_bundle(tmp_path_factory):
    """Export a small network with random weights for video."""
    folder = tmp_path_factory.mktemp("video")
    torch.manual_seed(0)
    config = replace(
        TABLETOP_MODEL, input_size=(96, 96), channels=8, num_prototypes=4, mask_rescoring=False
    )
    model = Yolact(config)
    initialise_weights(model)
    save_checkpoint(folder / "tiny.pth", model.eval())
    export_bundle(folder / "tiny.pth", folder / "bundle", ExportOptions(keyframes=True))
    return folder / "bundle"


def picture(size=(96, 128)):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)


def test_partial_frames_name_the_keyframe_of_their_features(start_node, client, video_bundle):
    start_node(model=video_bundle, keyframe_interval=3, max_feature_age=60.0)
    results = [client.ask(picture()) for _ in range(5)]
    results.append(client.ask(picture((120, 160))))
    force = client.node.create_client(Trigger, f"{client.namespace}/yolact/force_keyframe")
    assert client.call(force, Trigger.Request()).success
    results.append(client.ask(picture((120, 160))))
    key, partial = InstanceArray.KEYFRAME, InstanceArray.PARTIAL
    assert [r.frame_type for r in results] == [key, partial, partial, key, partial, key, key]
    stamps = [r.header.stamp for r in results]
    sources = [stamps[i] for i in (0, 0, 0, 3, 3, 5, 6)]
    assert [r.keyframe_stamp for r in results] == sources
    client.spin_until(lambda: len(client.stats) >= 7)
    reasons = {s.header.stamp.sec: s.keyframe_reason for s in client.stats}
    assert [reasons[stamp.sec] for stamp in stamps] == [
        "first", "", "", "interval", "", "size_change", "requested",
    ]  # fmt: skip


def test_a_bundle_for_single_images_makes_every_image_a_keyframe(start_node, client):
    start_node()
    for _ in range(2):
        result = client.ask(picture())
        assert result.frame_type == InstanceArray.KEYFRAME
        assert result.keyframe_stamp == result.header.stamp


def test_by_default_the_node_propagates_detections_to_every_other_image(
    start_node, client, image_with
):
    start_node()
    client.period_ms = 50
    image = image_with({"red": (10, 12, 40, 44)}, (96, 128))
    results = [client.ask(image) for _ in range(4)]
    key, partial = InstanceArray.KEYFRAME, InstanceArray.PARTIAL
    assert [r.frame_type for r in results] == [key, partial, key, partial]
    stamps = [r.header.stamp for r in results]
    assert [r.keyframe_stamp for r in results] == [stamps[i] for i in (0, 0, 2, 2)]
    for result in results:
        (instance,) = result.instances
        assert instance.class_name == "red"
    assert client.spin_until(lambda: len(client.stats) >= 4)
    reported = [(s.frame_type, s.keyframe_reason, s.inference_ms > 0) for s in client.stats]
    assert reported == [
        (key, "first", True),
        (partial, "", False),
        (key, "interval", True),
        (partial, "", False),
    ]


def test_the_node_can_run_the_network_on_every_image(start_node, client):
    start_node(propagated_frames=0)
    client.period_ms = 50
    results = [client.ask(picture()) for _ in range(3)]
    assert {r.frame_type for r in results} == {InstanceArray.KEYFRAME}


def test_a_warp_that_the_model_lacks_ends_the_node_with_an_error_message(start, squares_bundle):
    program = start(
        "yolact_node", ros_arguments=("-p", f"model:={squares_bundle}", "-p", "warp:=learned")
    )
    assert program.wait() == 1
    assert "has no warp 'learned'" in program.output
