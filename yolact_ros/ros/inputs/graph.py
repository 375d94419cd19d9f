"""What the graph of nodes and topics says about a node that waits for images."""

from __future__ import annotations

from rclpy.node import Node

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
SUFFIX = "/compressed"


def explain_silence(node: Node, topic: str, expected: str) -> str:
    """Explain why no image can arrive, and name the parameter to change; empty if unknown.

    Args:
        node: any node of the graph.
        topic: full name of the subscribed topic.
        expected: type of the subscription, `sensor_msgs/msg/Image` or `.../CompressedImage`.
    """
    types = _types(node, topic)
    if expected in types:
        return ""
    if types:
        return f"{topic} carries {', '.join(sorted(types))}, not {expected}. " + _hint(types)
    if topic.endswith(SUFFIX * 2):
        return (
            f"The name ends in {SUFFIX} twice: remap image to the topic of the raw images; "
            f"image_transport compressed appends {SUFFIX}."
        )
    base = topic.removesuffix(SUFFIX)
    if expected == COMPRESSED_TYPE and IMAGE_TYPE in _types(node, base):
        return f"{base} carries raw images: set the parameter image_transport to raw."
    if expected == IMAGE_TYPE and COMPRESSED_TYPE in _types(node, topic + SUFFIX):
        return f"{topic}{SUFFIX} carries images: set the parameter image_transport to compressed."
    return ""


def count_namesakes(node: Node) -> int:
    """Return how many other nodes have this node's full name."""
    own = (node.get_name(), node.get_namespace())
    return max(node.get_node_names_and_namespaces().count(own) - 1, 0)


def _types(node: Node, topic: str) -> set[str]:
    return {info.topic_type for info in node.get_publishers_info_by_topic(topic)}


def _hint(types: set[str]) -> str:
    if COMPRESSED_TYPE in types:
        return (
            "Set the parameter image_transport to compressed and remap image to the name without "
            f"{SUFFIX}."
        )
    if IMAGE_TYPE in types:
        return "Set the parameter image_transport to raw."
    if any("CompressedVideo" in kind or "FFMPEGPacket" in kind for kind in types):
        return "Video streams are not supported; let image_transport republish it as raw."
    return "Remap image to the topic of a camera's images."
