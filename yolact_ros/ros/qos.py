"""What the middleware tells about a subscription, in words that say what to change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rclpy.event_handler import (
    QoSMessageLostInfo,
    QoSRequestedIncompatibleQoSInfo,
    SubscriptionEventCallbacks,
)
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSPolicyKind, QoSProfile, qos_check_compatible
from rclpy.qos_overriding_options import QoSOverridingOptions

if TYPE_CHECKING:
    from rclpy.topic_endpoint_info import TopicEndpointInfo

# What the parameters qos_overrides.TOPIC.subscription.POLICY may change.
OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
THROTTLE_S = 5.0  # between two log lines about lost images


def overriding_options() -> QoSOverridingOptions:
    """Let parameters change a subscription's QoS."""
    return QoSOverridingOptions(OVERRIDABLE)


class SubscriptionWatch:
    """Logs what keeps messages of one topic away, and remembers it.

    Attributes:
        topic: full name.
        lost: messages that the middleware reported lost.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self.topic = topic
        self.lost = 0
        self._node = node
        self._asked: QoSProfile | None = None
        self._clash = ""

    def callbacks(self, asked: QoSProfile) -> SubscriptionEventCallbacks:
        """Callbacks for a subscription of this topic.

        Args:
            asked: the QoS that it is made with; parameters may change it on the way.
        """
        self._asked = asked
        self._clash = ""
        return SubscriptionEventCallbacks(
            incompatible_qos=self._on_incompatible, message_lost=self._on_lost
        )

    def clash(self) -> str:
        """Words on publishers that cannot be heard; empty if there are none, or none any more."""
        if self._clash and not self._unheard():
            self._clash = ""
        return self._clash

    def _unheard(self) -> list[TopicEndpointInfo]:
        assert self._asked is not None
        return unheard(self._node.get_publishers_info_by_topic(self.topic), self._asked)

    def _on_incompatible(self, info: QoSRequestedIncompatibleQoSInfo) -> None:
        assert self._asked is not None
        self._clash = clash_words(
            self.topic, info.last_policy_kind, asked=self._asked, publishers=self._unheard()
        )
        self._node.get_logger().warning(self._clash)

    def _on_lost(self, info: QoSMessageLostInfo) -> None:
        self.lost = info.total_count
        self._node.get_logger().warning(
            lost_words(self.topic, info.total_count), throttle_duration_sec=THROTTLE_S
        )


def unheard(publishers: Iterable[TopicEndpointInfo], asked: QoSProfile) -> list[TopicEndpointInfo]:
    """Those publishers that a subscription with the QoS `asked` cannot hear."""
    return [
        publisher
        for publisher in publishers
        if qos_check_compatible(publisher.qos_profile, asked)[0] == QoSCompatibility.ERROR
    ]


def clash_words(
    topic: str, kind: int, *, asked: QoSProfile, publishers: Iterable[TopicEndpointInfo]
) -> str:
    """Say which two policies do not fit, and which parameter makes them fit.

    Args:
        topic: full name.
        kind: the policy, a `QoSPolicyKind`.
        asked: the subscription's QoS.
        publishers: those that it cannot hear, if they are known.
    """
    try:
        policy = QoSPolicyKind(kind).name.lower()
    except ValueError:
        policy = "qos"
    wanted = _value(asked, policy)
    offers = {_value(publisher.qos_profile, policy): publisher for publisher in publishers}
    offers.pop(wanted, None)
    if offers:
        (offered, publisher), *_ = offers.items()
        name = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
        source = f"{name} offers {policy} {offered}"
    else:
        offered, source = "what it offers", f"a publisher offers another {policy}"
    words = (
        f"Nothing arrives from a publisher of {topic}: {source}, and this node asks for {wanted}."
    )
    if policy in {known.name.lower() for known in OVERRIDABLE}:
        words += f" Start it with the parameter {override(topic, policy)} set to {offered}."
    return words


def lost_words(topic: str, count: int) -> str:
    """Say how many messages were lost, and what helps."""
    return (
        f"The middleware has lost {count} message{'s' if count != 1 else ''} of {topic} on the "
        "way. Large images need config/fastdds_shm.xml of this package in the environment of "
        "camera and node (FASTDDS_DEFAULT_PROFILES_FILE), or the parameter "
        f"{override(topic, 'reliability')} set to reliable, if the camera offers that."
    )


def override(topic: str, policy: str) -> str:
    """The parameter that changes one policy of a subscription."""
    return f"qos_overrides.{topic}.subscription.{policy}"


def _value(profile: QoSProfile, policy: str) -> str:
    value = getattr(profile, policy, "unknown")
    return str(getattr(value, "name", value)).lower()
