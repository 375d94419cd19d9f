"""The node explains why no image arrives, from real publishers over DDS."""

from __future__ import annotations

import time

import pytest

rclpy = pytest.importorskip("rclpy")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from yolact_ros.ros.inputs.graph import count_namesakes, explain_silence, name_image_topics

# Published type, published name, subscribed name, subscribed type, message (empty: nothing wrong).
CASES = {
    "right": (Image, "/image", "/image", Image, ""),
    "raw on a compressed topic": (
        *(CompressedImage, "/image/compressed", "/image/compressed", Image),
        "image_transport to compressed and remap to the name without",
    ),
    "raw, only compressed there": (
        *(CompressedImage, "/image/compressed", "/image", Image),
        "set the parameter image_transport to compressed",
    ),
    "compressed, only raw there": (
        *(Image, "/image", "/image/compressed", CompressedImage),
        "set the parameter image_transport to raw",
    ),
    "compressed twice": (
        *(CompressedImage, "/image/compressed", "/image/compressed/compressed", CompressedImage),
        "ends in /compressed twice",
    ),
    "another type": (String, "/image", "/image", Image, "std_msgs/msg/String"),
    "nobody": (String, "/other", "/image", Image, ""),
}


@pytest.fixture
def node(ros):
    node = rclpy.create_node("camera", namespace=f"/graph{time.monotonic_ns() % 10**9}")
    yield node
    node.destroy_node()


@pytest.mark.parametrize("case", CASES)
def test_silence_is_explained_by_the_parameter_to_change(node, case):
    kind, published, subscribed, expected, message = CASES[case]
    prefix = node.get_namespace()
    node.create_publisher(kind, prefix + published, 1)
    deadline = time.monotonic() + 10.0
    while not node.count_publishers(prefix + published) and time.monotonic() < deadline:
        time.sleep(0.02)
    found = explain_silence(node, prefix + subscribed, expected)
    assert message in found and bool(message) == bool(found)


def test_topics_with_other_images_are_named(node):
    assert node.get_namespace() not in name_image_topics(node)
    topics = [f"{node.get_namespace()}/{name}" for name in "ab"]
    publishers = [node.create_publisher(Image, topic, 1) for topic in topics]
    node.create_publisher(Image, "~/overlay", 1)
    deadline = time.monotonic() + 10.0
    while not all(map(node.count_publishers, topics)) and time.monotonic() < deadline:
        time.sleep(0.02)
    found, own = name_image_topics(node, most=1000), f"{node.get_fully_qualified_name()}/overlay"
    assert all(topic in found for topic in topics) and own not in found
    assert ", ...: remap" in name_image_topics(node, most=1)
    for publisher in publishers:
        node.destroy_publisher(publisher)


def test_nodes_with_the_same_name_are_counted(node):
    assert count_namesakes(node) == 0
    other = rclpy.create_node("camera", namespace=node.get_namespace())
    deadline = time.monotonic() + 10.0
    while not count_namesakes(node) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert count_namesakes(node) == 1
    other.destroy_node()
