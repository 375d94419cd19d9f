"""Incompatible publishers are reported, from real mismatches over DDS."""

from __future__ import annotations

import re
import time
import types
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.parameter import Parameter
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from yolact_ros.ros.inputs import qos
from yolact_ros.ros.inputs.camera import CameraInput, image_qos
from yolact_ros.ros.inputs.mailbox import Inbox
from yolact_ros.ros.inputs.qos import (
    SubscriptionWatch,
    clash_message,
    lost_messages_message,
    new_publisher,
)
from yolact_ros.ros.inputs.transport import loss_advice, only_this_machine
from yolact_ros.ros.outputs.topics import RESULT_QOS
from yolact_ros.ros.parameters.settings import InputSettings

REPOSITORY = Path(__file__).resolve().parent.parent.parent

CLASHES = {
    "reliability": (
        {"reliability": "reliable"},
        {"reliability": ReliabilityPolicy.BEST_EFFORT},
        "offers reliability best_effort, and this node requests reliable",
        "best_effort",
    ),
    "durability": (
        {"durability": "transient_local"},
        {"reliability": ReliabilityPolicy.RELIABLE, "durability": DurabilityPolicy.VOLATILE},
        "offers durability volatile, and this node requests transient_local",
        "volatile",
    ),
}


@pytest.fixture
def make_node(ros):
    nodes = []

    def make(name, *remaps, **overrides):
        values = [Parameter(key, value=value) for key, value in overrides.items()]
        words = [word for remap in remaps for word in ("-r", remap)]
        nodes.append(
            rclpy.create_node(
                name,
                namespace=f"/qos{time.monotonic_ns() % 10**9}",
                parameter_overrides=values,
                cli_args=["--ros-args", *words] if words else None,
            )
        )
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def spin(nodes, condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        for node in nodes:
            rclpy.spin_once(node, timeout_sec=0.02)
    return bool(condition())


@pytest.mark.parametrize("policy", CLASHES)
def test_an_incompatible_publisher_is_named_with_what_to_change(make_node, policy):
    asked, offered, message, remedy = CLASHES[policy]
    topic = f"/qos{time.monotonic_ns()}/image_raw"
    parameters = {f"qos_overrides.{topic}.subscription.{k}": v for k, v in asked.items()}
    node, camera = make_node("yolact", f"image:={topic}", **parameters), make_node("usb_cam")
    watched = CameraInput(node, "", inbox=Inbox(), settings=InputSettings())
    watched.subscribe()
    assert watched.watch.clash() == ""
    publisher = camera.create_publisher(Image, topic, QoSProfile(depth=1, **offered))
    assert spin([node], watched.watch.clash)
    assert watched.watch.clash() == (
        f"Nothing arrives from a publisher of {topic}: {camera.get_fully_qualified_name()} "
        f"{message}. Start it with the parameter qos_overrides.{topic}.subscription.{policy} set "
        f"to {remedy}."
    )
    camera.destroy_publisher(publisher)
    assert spin([node], lambda: not watched.watch.clash())


def test_unknown_publishers_get_a_general_message():
    given = {"role": "subscription", "ours": image_qos(keeps_all=True), "others": []}
    message = clash_message("/image", QoSPolicyKind.RELIABILITY, **given)
    assert message == (
        "Nothing arrives from a publisher of /image: one offers another reliability, and "
        "this node requests reliable. Start it with the parameter "
        "qos_overrides./image.subscription.reliability set to what the other one has."
    )
    for kind in (QoSPolicyKind.DEADLINE, 12345):
        assert "qos_overrides" not in clash_message("/image", kind, **given)


def test_an_incompatible_subscriber_is_named_with_what_to_change(make_node):
    topic = f"/qos{time.monotonic_ns()}/results"
    messages = []
    node, planner = make_node("yolact"), make_node("planner")
    node.get_logger = lambda: types.SimpleNamespace(warning=messages.append)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    new_publisher(node, Image, topic, RESULT_QOS)
    planner.create_subscription(Image, topic, lambda message: None, latched)
    assert spin([node], lambda: messages)
    assert messages == [
        f"Nothing reaches a subscriber of {topic}: {planner.get_fully_qualified_name()} requests "
        "durability transient_local, and this node offers volatile. Start it with the parameter "
        f"qos_overrides.{topic}.publisher.durability set to transient_local."
    ]
    parameter = f"qos_overrides.{topic}.publisher.durability"
    latching = make_node("other", **{parameter: "transient_local"})
    new_publisher(latching, Image, topic, RESULT_QOS)
    assert latching.get_parameter(parameter).value == "transient_local"
    assert RESULT_QOS.durability != DurabilityPolicy.TRANSIENT_LOCAL
    find = latching.get_publishers_info_by_topic
    latched = DurabilityPolicy.TRANSIENT_LOCAL
    assert spin([latching], lambda: latched in [i.qos_profile.durability for i in find(topic)])


def test_lost_images_are_counted_in_the_message():
    assert lost_messages_message("/image", 1).startswith(
        "The middleware has lost 1 message of /image. "
    )
    message = lost_messages_message("/image", 27)
    assert "lost 27 messages" in message
    assert loss_advice(get_rmw_implementation_identifier()) in message
    assert "qos_overrides./image.subscription.reliability" in message


def test_the_advice_on_lost_images_depends_on_the_settings(tmp_path):
    shipped = REPOSITORY / "config" / "fastdds_shm.xml"
    fast = "rmw_fastrtps_cpp"
    assert "Set FASTDDS_DEFAULT_PROFILES_FILE to config/fastdds_shm.xml" in loss_advice(fast, {})
    jazzy = {"ROS_DISTRO": "jazzy"}
    assert "Set FASTRTPS_DEFAULT_PROFILES_FILE" in loss_advice(fast, jazzy)
    wrong = jazzy | {"FASTDDS_DEFAULT_PROFILES_FILE": str(shipped)}
    assert "FASTDDS_DEFAULT_PROFILES_FILE is set, but" in loss_advice(fast, wrong)
    loaded = loss_advice(fast, {"FASTDDS_DEFAULT_PROFILES_FILE": str(shipped)})
    assert loaded.startswith(f"This node uses {shipped}") and "fastdds_4k.xml" in loaded
    assert "Set FASTDDS" not in loaded
    missing = {"FASTDDS_DEFAULT_PROFILES_FILE": str(tmp_path / "none.xml")}
    assert "cannot be read (No such file" in loss_advice(fast, missing)
    other = tmp_path / "other.xml"
    other.write_text("<profiles/>")
    found = loss_advice(fast, {"FASTDDS_DEFAULT_PROFILES_FILE": str(other)})
    assert "does not set segment_size" in found
    for rmw in ("rmw_cyclonedds_cpp", "rmw_zenoh_cpp"):
        advice = loss_advice(rmw, {"FASTDDS_DEFAULT_PROFILES_FILE": str(shipped)})
        assert rmw in advice and "fastdds" not in advice.lower()


def test_the_variable_that_keeps_traffic_on_this_machine_is_the_distributions():
    assert only_this_machine({"ROS_DISTRO": "humble"}) == ("ROS_LOCALHOST_ONLY", "1")
    for environment in ({"ROS_DISTRO": "jazzy"}, {"ROS_DISTRO": "kilted"}, {}):
        assert only_this_machine(environment) == ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def test_the_profiles_differ_in_the_size_of_shared_memory_alone():
    texts = [(REPOSITORY / "config" / f"fastdds_{name}.xml").read_text() for name in ("shm", "4k")]
    sizes = [int(re.search(r"<segment_size>(\d+)<", text)[1]) for text in texts]
    assert sizes[0] < sizes[1] and 3840 * 2160 * 3 < sizes[1] < 32 * 2**20
    elements = [re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL) for text in texts]
    parts = [re.sub(r"<segment_size>\d+<", "<", text).split() for text in elements]
    assert parts[0] == parts[1]


def test_overrides_for_one_camera_do_not_affect_the_others(make_node):
    front, rear = f"/a{time.monotonic_ns()}", f"/b{time.monotonic_ns()}"
    node = make_node(
        "yolact",
        f"front/image:={front}",
        f"rear/image:={rear}",
        **{f"qos_overrides.{front}.subscription.depth": 7},
    )
    settings = InputSettings(cameras=("front", "rear"))
    cameras = [CameraInput(node, n, inbox=Inbox(), settings=settings) for n in settings.cameras]
    for camera in cameras:
        camera.subscribe()
    find = node.get_subscriptions_info_by_topic
    assert spin([node], lambda: find(front) and find(rear))  # Cyclone DDS takes a moment
    (first,), (second,) = find(front), find(rear)
    assert node.get_parameter(f"qos_overrides.{front}.subscription.depth").value == 7
    assert node.get_parameter(f"qos_overrides.{rear}.subscription.depth").value == 1
    for info in (first, second):
        assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    assert image_qos(keeps_all=False).depth == 1
    assert image_qos(keeps_all=True).history == HistoryPolicy.KEEP_ALL


def test_compressed_images_are_taken_beside_the_remapped_name(make_node):
    base = f"/cam{time.monotonic_ns()}/color/image_raw"
    node, camera = make_node("yolact", f"image:={base}"), make_node("usb_cam")
    inbox = Inbox()
    taken = CameraInput(
        node, "", inbox=inbox, settings=InputSettings(image_transport="compressed")
    )
    assert taken.topic == f"{base}/compressed"
    taken.subscribe()
    publisher = camera.create_publisher(CompressedImage, f"{base}/compressed", 1)
    assert spin([node], publisher.get_subscription_count)
    message = CompressedImage(format="jpeg")
    message.data.frombytes(b"1234")
    publisher.publish(message)
    assert spin([node], lambda: taken.mailbox.counts().received)
    assert inbox.take()[1].message == message


@pytest.mark.parametrize("offered", [(), ("incompatible_qos",)])
def test_a_middleware_without_these_events_still_gets_a_subscription(
    make_node, offered, monkeypatch
):
    node = make_node("narrow")
    create = node.create_subscription

    def narrow(*words, event_callbacks, **more):
        asked = {e for e in ("incompatible_qos", "message_lost") if getattr(event_callbacks, e)}
        if asked - set(offered):
            raise qos.UnsupportedEventTypeError("not supported")
        return create(*words, event_callbacks=event_callbacks, **more)

    monkeypatch.setattr(node, "create_subscription", narrow)
    watch = SubscriptionWatch(node, "image")
    subscription = watch.subscribe(Image, lambda message: None, image_qos(keeps_all=False))
    assert subscription.topic_name == watch.topic


def test_the_count_of_lost_images_continues_after_a_new_subscription(make_node):
    node = make_node("counting")
    watch = SubscriptionWatch(node, "image")
    for losses in ((1, 120), (1, 3)):
        subscription = watch.subscribe(Image, lambda message: None, image_qos(keeps_all=False))
        before = 0
        for total in losses:
            change = types.SimpleNamespace(total_count=total, total_count_change=total - before)
            watch._on_lost(change)
            before = total
        node.destroy_subscription(subscription)
    assert watch.lost == 123
