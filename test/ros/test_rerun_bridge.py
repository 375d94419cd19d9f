"""The bridge shows what a real node publishes."""

from __future__ import annotations

import re
import signal

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rerun")

from depth_camera import BOX, CENTRE, FOCAL, SIZE, DepthCamera, scene
from rrd import show, verify

ENTITIES = (
    *("/picture", "/picture/masks", "/picture/boxes"),
    *("/space/points", "/space/boxes", "/milliseconds/inference"),
)
TOPICS = ("instances", "class_image", "stats", "points", "markers")


def test_it_records_images_masks_boxes_points_and_timings(
    start, start_node, client, image_with, tmp_path
):
    start_node(depth_wait=3.0, track_hits=1)
    camera = DepthCamera(client)
    output, space = tmp_path / "live.rrd", client.namespace
    words = ("--image", f"{space}/image", "--node", f"{space}/yolact", "-o", str(output))
    bridge = start("rerun_bridge", *words)
    for name in ("image", *(f"yolact/{topic}" for topic in TOPICS)):
        bridge.wait_for(f"Showing {space}/{name}.")
    assert not client.node.count_subscribers(f"{space}/image/compressed")  # nobody publishes it
    camera.connect()

    def recorded() -> bool:
        camera.send(client.send(image_with({"blue": BOX}, SIZE)), scene(), "32FC1")
        client.spin_until(lambda: False, 1.0)
        text = show(output)
        return all(f"entity_path: {name} " in text for name in ENTITIES)

    assert client.spin_until(recorded, 60.0), bridge.output
    status, _ = bridge.end(signal.SIGINT)
    assert status == 0, bridge.output
    verify(output)
    boxes = show(output, "/picture/boxes")
    x1, y1, x2, y2 = BOX
    assert "[#1 blue 0.90]" in boxes and "2023-11-14T22:13:21.987654321" in boxes
    assert "AnnotationContext" in show(output)
    assert "jpeg" in show(output, "/picture")
    triples = re.findall(r"\[\[([^\[\]a-z]+)\]\]", show(output, "/space/boxes"))
    centers = [tuple(map(float, triple.split(", "))) for triple in triples[::2]]
    middle = [(sum(edges) - 1 - 2 * CENTRE) / 2 / FOCAL * 0.5 for edges in ((x1, x2), (y1, y2))]
    assert centers and centers[-1] == pytest.approx((*middle, 0.5), abs=2e-3)
