"""Log QoS events of the middleware with advice on what to change."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node, TopicEndpointInfo
from rclpy.publisher import Publisher
from rclpy.qos import QoSCompatibility, QoSPolicyKind, QoSProfile, qos_check_compatible
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.utilities import get_rmw_implementation_identifier

from yolact_ros.ros.inputs.transport import loss_advice

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ModuleNotFoundError:  # the module's name in Humble
    from rclpy.qos_event import (  # type: ignore[import-not-found, no-redef]
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

T = TypeVar("T")

# Policies that the parameters qos_overrides.TOPIC.ROLE.POLICY may change.
OVERRIDABLE = {
    "subscription": (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    ),
    "publisher": (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY),
}
THROTTLE_S = 5.0  # between two log messages about lost images


class SubscriptionWatch:
    """Subscribes to one topic; logs and records what prevents reception.

    Attributes:
        topic: full name.
        lost: messages reported lost by the middleware, over all subscriptions of this object.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self.topic = node.resolve_topic_name(topic)
        self._name = topic  # unresolved, because remapping must be applied once
        self.lost = 0
        self._node = node
        self._asked = QoSProfile(depth=1)
        self._clash = ""

    def subscribe(
        self,
        kind: type,
        callback: Callable[[Any], None],
        qos: QoSProfile,
        *,
        callback_group: CallbackGroup | None = None,
    ) -> Subscription[Any]:
        """Subscribe to the topic.

        Args:
            kind: message type.
            callback: called with each message.
            qos: parameters `qos_overrides.TOPIC.subscription.POLICY` may override it.
            callback_group: group of the subscription; None for the node's default.
        """
        self._asked = qos
        self._clash = ""
        return _with_events(
            lambda callbacks: self._node.create_subscription(
                kind,
                self._name,
                callback,
                qos,
                callback_group=callback_group,
                event_callbacks=callbacks,
                qos_overriding_options=QoSOverridingOptions(OVERRIDABLE["subscription"]),
            ),
            SubscriptionEventCallbacks,
            {"incompatible_qos": self._on_incompatible, "message_lost": self._on_lost},
        )

    def clash(self) -> str:
        """Return a message about incompatible publishers; empty if there are none (any more)."""
        if self._clash and not self._unheard():
            self._clash = ""
        return self._clash

    def _unheard(self) -> list[TopicEndpointInfo]:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        return [other for other in publishers if _clash(other.qos_profile, self._asked)]

    def _on_incompatible(self, info: Any) -> None:
        self._clash = clash_message(
            self.topic,
            info.last_policy_kind,
            role="subscription",
            ours=self._asked,
            others=self._unheard(),
        )
        self._node.get_logger().warning(self._clash)

    def _on_lost(self, info: Any) -> None:
        self.lost += info.total_count_change  # a new subscription counts from 0 again
        self._node.get_logger().warning(
            lost_messages_message(self.topic, self.lost), throttle_duration_sec=THROTTLE_S
        )


def new_publisher(
    node: Node,
    kind: type,
    topic: str,
    qos: QoSProfile,
    *,
    on_matched: Callable[[], None] = lambda: None,
) -> Publisher[Any]:
    """Create a publisher that logs incompatible subscribers and what to change.

    Args:
        node: node that owns the publisher.
        kind: message type.
        topic: topic name.
        qos: left unchanged; parameters `qos_overrides.TOPIC.publisher.POLICY` apply to this
            publisher only.
        on_matched: called by the executor when subscribers come or go; never on Humble, whose
            rclpy has no such event.
    """
    offered = copy.copy(qos)  # rclpy writes the overrides into it
    name = node.resolve_topic_name(topic)

    def warn(info: Any) -> None:
        subscribers = node.get_subscriptions_info_by_topic(name)
        unserved = [other for other in subscribers if _clash(offered, other.qos_profile)]
        kind = info.last_policy_kind
        message = clash_message(name, kind, role="publisher", ours=offered, others=unserved)
        node.get_logger().warning(message)

    return _with_events(
        lambda callbacks: node.create_publisher(
            kind,
            topic,
            offered,
            event_callbacks=callbacks,
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE["publisher"]),
        ),
        PublisherEventCallbacks,
        {"incompatible_qos": warn, "matched": lambda info: on_matched()},
    )


def _with_events(
    create: Callable[[Any], T],
    kind: Callable[..., Any],
    events: Mapping[str, Callable[[Any], None]],
) -> T:
    """Create an endpoint with as many of its events as the middleware supports.

    Args:
        create: creates the endpoint with the given callbacks.
        kind: class of the callbacks.
        events: callbacks by event, the most useful first.
    """
    known = inspect.signature(kind).parameters
    names = [name for name in events if name in known]
    while True:
        try:
            return create(kind(**{name: events[name] for name in names}))
        except UnsupportedEventTypeError:
            if not names:
                raise
            names.pop()


def clash_message(
    topic: str, kind: int, *, role: str, ours: QoSProfile, others: Iterable[TopicEndpointInfo]
) -> str:
    """Describe an incompatible QoS policy and how to resolve it.

    Args:
        topic: full name.
        kind: the policy, a `QoSPolicyKind`.
        role: role of this node, `subscription` or `publisher`.
        ours: this node's QoS.
        others: the incompatible endpoints, if known.
    """
    policy = {each.value: each.name.lower() for each in QoSPolicyKind}.get(kind, "policy")
    value = _value(ours, policy)
    who, theirs = "one", ""
    for other in others:
        if _value(other.qos_profile, policy) != value:
            who = f"{other.node_namespace.rstrip('/')}/{other.node_name}"
            theirs = _value(other.qos_profile, policy)
            break
    what = f"{policy} {theirs}" if theirs else f"another {policy}"
    if role == "subscription":
        message = (
            f"Nothing arrives from a publisher of {topic}: {who} offers {what}, and this node "
            f"requests {value}."
        )
    else:
        message = (
            f"Nothing reaches a subscriber of {topic}: {who} requests {what}, and this node "
            f"offers {value}."
        )
    if kind in OVERRIDABLE[role]:
        parameter = override_parameter(topic, policy, role=role)
        message += f" Start it with the parameter {parameter} set to "
        message += f"{theirs or 'what the other one has'}."
    return message


def lost_messages_message(topic: str, count: int) -> str:
    """Report how many messages were lost and what helps."""
    return (
        f"The middleware has lost {count} message{'s' if count != 1 else ''} of {topic}. "
        f"{loss_advice(get_rmw_implementation_identifier())} Or set the parameter "
        f"{override_parameter(topic, 'reliability')} to reliable, if the camera offers that."
    )


def override_parameter(topic: str, policy: str, *, role: str = "subscription") -> str:
    """Name the parameter that changes one policy of a subscription or of a publisher."""
    return f"qos_overrides.{topic}.{role}.{policy}"


def _clash(offered: QoSProfile, asked: QoSProfile) -> bool:
    return bool(qos_check_compatible(offered, asked)[0] == QoSCompatibility.ERROR)


def _value(profile: QoSProfile, policy: str) -> str:
    value = getattr(profile, policy, "unknown")
    return str(getattr(value, "name", value)).lower()
