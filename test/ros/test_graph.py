"""Why no image arrives, from real publishers over DDS."""

from __future__ import annotations

import time

import pytest

rclpy = pytest.importorskip("rclpy")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from yolact_ros.ros.inputs.graph import (
    COMPRESSED_TYPE,
    IMAGE_TYPE,
    count_namesakes,
    explain_silence,
)

# Published type, published name, subscribed name, subscribed type, words (empty: nothing wrong).
CASES = {
    "right": (Image, "/image", "/image", IMAGE_TYPE, ""),
    "raw on a compressed topic": (
        *(CompressedImage, "/image/compressed", "/image/compressed", IMAGE_TYPE),
        "image_transport to compressed and remap image to the name without",
    ),
    "raw, only compressed there": (
        *(CompressedImage, "/image/compressed", "/image", IMAGE_TYPE),
        "set the parameter image_transport to compressed",
    ),
    "compressed, only raw there": (
        *(Image, "/image", "/image/compressed", COMPRESSED_TYPE),
        "set the parameter image_transport to raw",
    ),
    "compressed twice": (
        *(CompressedImage, "/image/compressed", "/image/compressed/compressed", COMPRESSED_TYPE),
        "ends in /compressed twice",
    ),
    "another type": (String, "/image", "/image", IMAGE_TYPE, "std_msgs/msg/String"),
    "nobody": (String, "/other", "/image", IMAGE_TYPE, ""),
}


@pytest.fixture
def node(ros):
    node = rclpy.create_node("camera", namespace=f"/graph{time.monotonic_ns() % 10**9}")
    yield node
    node.destroy_node()


@pytest.mark.parametrize("case", CASES)
def test_silence_is_explained_by_the_parameter_to_change(node, case):
    kind, published, subscribed, expected, words = CASES[case]
    prefix = node.get_namespace()
    node.create_publisher(kind, prefix + published, 1)
    deadline = time.monotonic() + 10.0
    while not node.count_publishers(prefix + published) and time.monotonic() < deadline:
        time.sleep(0.02)
    found = explain_silence(node, prefix + subscribed, expected)
    assert words in found and bool(words) == bool(found)


def test_nodes_of_one_name_are_counted(node):
    assert count_namesakes(node) == 0
    other = rclpy.create_node("camera", namespace=node.get_namespace())
    deadline = time.monotonic() + 10.0
    while not count_namesakes(node) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert count_namesakes(node) == 1
    other.destroy_node()
