"""Explain from the ROS graph why a node receives no images."""

from __future__ import annotations

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
# Parameter -> image_transport plugins; the topic name ends in the plugin's name.
PLUGINS = {"image_transport": "compressed", "depth_transport": "compressedDepth"}


def explain_silence(
    node: Node, topic: str, kind: type, *, parameter: str = "image_transport"
) -> str:
    """Explain why no image can arrive, and name the parameter to change; empty if unknown.

    Args:
        node: any node of the graph.
        topic: full name of the subscribed topic.
        kind: message type of the subscription, `Image` or `CompressedImage`.
        parameter: parameter that chooses the type, a key of `PLUGINS`.
    """
    suffix = f"/{PLUGINS[parameter]}"
    expected = COMPRESSED_TYPE if kind is CompressedImage else IMAGE_TYPE
    types = _types(node, topic)
    if expected in types:
        return ""
    if types:
        return f"{topic} carries {', '.join(sorted(types))}, not {expected}. " + _hint(
            types, parameter
        )
    if topic.endswith(suffix * 2):
        return (
            f"The name ends in {suffix} twice: remap to the topic of the raw images; "
            f"{parameter} appends {suffix}."
        )
    base = topic.removesuffix(suffix)
    if expected == COMPRESSED_TYPE and IMAGE_TYPE in _types(node, base):
        return f"{base} carries raw images: set the parameter {parameter} to raw."
    if expected == IMAGE_TYPE and COMPRESSED_TYPE in _types(node, topic + suffix):
        return f"{topic}{suffix} carries images: set the parameter {parameter} to {suffix[1:]}."
    return ""


def name_image_topics(node: Node, *, most: int = 5) -> str:
    """Name topics on which other nodes publish images; empty if there are none.

    Args:
        node: node whose own topics are left out.
        most: maximum number of names.
    """
    own = f"{node.get_fully_qualified_name()}/"
    names = [
        name
        for name, types in node.get_topic_names_and_types()
        if {IMAGE_TYPE, COMPRESSED_TYPE} & set(types)
        and not name.startswith(own)
        and node.count_publishers(name)
    ]
    if not names:
        return ""
    listed = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return f"Images are published on {listed}: remap image to one of them (launch argument image)."


def count_namesakes(node: Node) -> int:
    """Return how many other nodes have this node's full name."""
    own = (node.get_name(), node.get_namespace())
    return max(node.get_node_names_and_namespaces().count(own) - 1, 0)


def _types(node: Node, topic: str) -> set[str]:
    return {info.topic_type for info in node.get_publishers_info_by_topic(topic)}


def _hint(types: set[str], parameter: str) -> str:
    if COMPRESSED_TYPE in types:
        plugin = PLUGINS[parameter]
        return (
            f"Set the parameter {parameter} to {plugin} and remap to the name without /{plugin}."
        )
    if IMAGE_TYPE in types:
        return f"Set the parameter {parameter} to raw."
    if any("CompressedVideo" in kind or "FFMPEGPacket" in kind for kind in types):
        return "Video streams are not supported; let image_transport republish it as raw."
    return "Remap to the topic of a camera's images."
