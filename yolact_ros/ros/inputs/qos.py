"""QoS events of the middleware, logged as sentences that say what to change."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSCompatibility, QoSPolicyKind, QoSProfile, qos_check_compatible
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.utilities import get_rmw_implementation_identifier

from yolact_ros.ros.inputs.transport import loss_advice

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        QoSMessageLostInfo,
        QoSOfferedIncompatibleQoSInfo,
        QoSRequestedIncompatibleQoSInfo,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ModuleNotFoundError:  # the module's name in Humble
    from rclpy.qos_event import (  # type: ignore[import-not-found, no-redef]
        PublisherEventCallbacks,
        QoSMessageLostInfo,
        QoSOfferedIncompatibleQoSInfo,
        QoSRequestedIncompatibleQoSInfo,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

if TYPE_CHECKING:
    from rclpy.callback_groups import CallbackGroup
    from rclpy.subscription import Subscription
    from rclpy.topic_endpoint_info import TopicEndpointInfo

T = TypeVar("T")

# What the parameters qos_overrides.TOPIC.subscription.POLICY may change.
OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
# The same for publishers.
PUBLISHER_OVERRIDABLE = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
THROTTLE_S = 5.0  # between two log lines about lost images


class SubscriptionWatch:
    """Subscribes to one topic; logs and remembers what keeps its messages away.

    Attributes:
        topic: full name.
        lost: messages that the middleware reported lost, over all subscriptions of this object.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self.topic = node.resolve_topic_name(topic)
        self._name = topic  # remapping applies once
        self.lost = 0
        self._node = node
        self._asked: QoSProfile | None = None
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
            kind: type of the messages.
            callback: takes a message.
            qos: parameters `qos_overrides.TOPIC.subscription.POLICY` may change it.
            callback_group: of the subscription; None for the node's default.
        """
        self._asked = qos
        self._clash = ""
        events: dict[str, Callable[[Any], None]] = {
            "incompatible_qos": self._on_incompatible,
            "message_lost": self._on_lost,
        }
        return _with_events(
            lambda callbacks: self._node.create_subscription(
                kind,
                self._name,
                callback,
                qos,
                callback_group=callback_group,
                event_callbacks=callbacks,
                qos_overriding_options=QoSOverridingOptions(OVERRIDABLE),
            ),
            SubscriptionEventCallbacks,
            events,
        )

    def clash(self) -> str:
        """Words on publishers that cannot be heard; empty if there are none, or none any more."""
        if self._clash and not self._unheard():
            self._clash = ""
        return self._clash

    def _unheard(self) -> list[TopicEndpointInfo]:
        assert self._asked is not None
        return incompatible_publishers(
            self._node.get_publishers_info_by_topic(self.topic), self._asked
        )

    def _on_incompatible(self, info: QoSRequestedIncompatibleQoSInfo) -> None:
        assert self._asked is not None
        self._clash = incompatible_publisher_message(
            self.topic, info.last_policy_kind, asked=self._asked, publishers=self._unheard()
        )
        self._node.get_logger().warning(self._clash)

    def _on_lost(self, info: QoSMessageLostInfo) -> None:
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
    """Make a publisher that logs which subscribers it cannot serve, and what to change.

    Args:
        node: whose publisher it is.
        kind: of the messages.
        topic: its name.
        qos: left as it is; parameters `qos_overrides.TOPIC.publisher.POLICY` hold for the
            publisher alone.
        on_matched: called by the executor when subscribers come or go; never in Humble, whose
            rclpy has no such event.
    """
    offered = copy.copy(qos)  # rclpy writes the overrides into it
    name = node.resolve_topic_name(topic)

    def warn(info: QoSOfferedIncompatibleQoSInfo) -> None:
        subscribers = incompatible_subscribers(node.get_subscriptions_info_by_topic(name), offered)
        node.get_logger().warning(
            incompatible_subscriber_message(
                name, info.last_policy_kind, offered=offered, subscribers=subscribers
            )
        )

    return _with_events(
        lambda callbacks: node.create_publisher(
            kind,
            topic,
            offered,
            event_callbacks=callbacks,
            qos_overriding_options=QoSOverridingOptions(PUBLISHER_OVERRIDABLE),
        ),
        PublisherEventCallbacks,
        {"incompatible_qos": warn, "matched": lambda info: on_matched()},
    )


def _with_events(
    create: Callable[[Any], T],
    kind: Callable[..., Any],
    events: Mapping[str, Callable[[Any], None]],
) -> T:
    """Create an endpoint with as many of its events as the middleware offers.

    Args:
        create: makes the endpoint with the given callbacks.
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


def incompatible_publishers(
    publishers: Iterable[TopicEndpointInfo], asked: QoSProfile
) -> list[TopicEndpointInfo]:
    """Those publishers that a subscription with the QoS `asked` cannot hear."""
    return [other for other in publishers if _clash(other.qos_profile, asked)]


def incompatible_subscribers(
    subscribers: Iterable[TopicEndpointInfo], offered: QoSProfile
) -> list[TopicEndpointInfo]:
    """Those subscribers that a publisher with the QoS `offered` cannot serve."""
    return [other for other in subscribers if _clash(offered, other.qos_profile)]


def incompatible_publisher_message(
    topic: str, kind: int, *, asked: QoSProfile, publishers: Iterable[TopicEndpointInfo]
) -> str:
    """Say which policies of publishers and a subscription differ, and what makes them fit.

    Args:
        topic: full name.
        kind: the policy, a `QoSPolicyKind`.
        asked: the subscription's QoS.
        publishers: those that it cannot hear, if they are known.
    """
    policy, wanted = _policy(kind), _value(asked, _policy(kind))
    name, offered = _first_other(publishers, policy, wanted)
    source = f"{name} offers {policy} {offered}" if name else f"one offers another {policy}"
    words = (
        f"Nothing arrives from a publisher of {topic}: {source}, and this node asks for {wanted}."
    )
    if kind in OVERRIDABLE:
        words += _hint(override(topic, policy), offered or "what that one offers")
    return words


def incompatible_subscriber_message(
    topic: str, kind: int, *, offered: QoSProfile, subscribers: Iterable[TopicEndpointInfo]
) -> str:
    """Return the message for a publisher that offers QoS `offered` to its subscribers."""
    policy, given = _policy(kind), _value(offered, _policy(kind))
    name, asked = _first_other(subscribers, policy, given)
    source = f"{name} asks for {policy} {asked}" if name else f"one asks for another {policy}"
    words = f"Nothing reaches a subscriber of {topic}: {source}, and this node offers {given}."
    if kind in PUBLISHER_OVERRIDABLE:
        parameter = override(topic, policy, role="publisher")
        words += _hint(parameter, asked or "what that one asks for")
    return words


def lost_messages_message(topic: str, count: int) -> str:
    """Say how many messages were lost, and what helps."""
    return (
        f"The middleware has lost {count} message{'s' if count != 1 else ''} of {topic}. "
        f"{loss_advice(get_rmw_implementation_identifier())} Or set the parameter "
        f"{override(topic, 'reliability')} to reliable, if the camera offers that."
    )


def override(topic: str, policy: str, *, role: str = "subscription") -> str:
    """The parameter that changes one policy of a subscription or of a publisher."""
    return f"qos_overrides.{topic}.{role}.{policy}"


def _clash(offered: QoSProfile, asked: QoSProfile) -> bool:
    return bool(qos_check_compatible(offered, asked)[0] == QoSCompatibility.ERROR)


def _first_other(
    endpoints: Iterable[TopicEndpointInfo], policy: str, ours: str
) -> tuple[str, str]:
    """Node and value of the first endpoint whose policy is not ours; empty if there is none."""
    for endpoint in endpoints:
        value = _value(endpoint.qos_profile, policy)
        if value != ours:
            return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}", value
    return "", ""


def _hint(parameter: str, value: str) -> str:
    return f" Start it with the parameter {parameter} set to {value}."


def _policy(kind: int) -> str:
    try:
        return QoSPolicyKind(kind).name.lower()
    except ValueError:
        return "policy"


def _value(profile: QoSProfile, policy: str) -> str:
    value = getattr(profile, policy, "unknown")
    return str(getattr(value, "name", value)).lower()
