"""Simulate the node's surroundings in a soak: erratic cameras, subscribers and a manager."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from soak_test.images import random_compressed, random_image
from soak_test.ledger import Ledger
from yolact_ros.errors import BackendError
from yolact_ros.msg import FrameStats, InstanceArray
from yolact_ros.ros.demo.child_process import ChildProcess
from yolact_ros.ros.demo.video_camera import IMAGE_QOS
from yolact_ros.ros.diagnostics.publisher import memory_mb
from yolact_ros.ros.outputs.topics import image_topics, space_topics
from yolact_ros.srv import Segment

NAMESPACE = "/soak"
CAMERAS = ("front", "rear", "left", "right")
RESULT_QOS = QoSProfile(depth=1000)
WAITING = 9  # images of one camera that may be waiting or in progress: queue_size and one
ANSWER_S = 60.0  # within which the node must answer, whatever it does
REPEAT_S = 5.0  # before a request without an answer is sent again
RESEND_S = 3.0  # before an image counts as lost in transport

# Parameters that may be changed at any time, with valid values.
GOOD_VALUES: dict[str, list[Any]] = {
    "score_threshold": [0.0, 0.3, 0.7, 1.0],
    "nms": ["fast", "cross_class", "greedy"],
    "max_detections": [1, 20, 100],
    "mask_encoding": ["bits", "mono8", "rle", "none"],
    "propagated_frames": [-1, 0, 3],
    "tracking": [True, False],
    "track_hits": [1, 3],
    "max_frame_age": [0.0, 0.5],
    "max_megapixels": [0.2, 64.0],
    "depth_max": [0.5, 100.0],
}
BAD_VALUES: list[tuple[str, Any]] = [
    ("score_threshold", float("nan")),
    ("score_threshold", "high"),
    ("nms", "slow"),
    ("max_detections", 0),
    ("track_hits", 2**40),
    ("propagated_frames", -2),
    ("depth_max", float("inf")),
    ("no_such_parameter", 1),
]
TRANSITIONS = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
)
# State -> the next transition towards the active state.
FORWARD = {
    State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
    State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE,
}


class World(Node):
    """Drives cameras, subscribers and a manager around one node from one source of randomness.

    Attributes:
        ledgers: ledgers of the cameras, by name.
        counts: how often each action was done.
        faults: what was wrong, apart from the ledgers.
        lost_answers: number of answers that the current node process sent and that never arrived.
    """

    def __init__(self, draw: random.Random) -> None:
        super().__init__("world", namespace=NAMESPACE)
        self.ledgers = {name: Ledger(name) for name in CAMERAS}
        self.counts: dict[str, int] = {}
        self.faults: list[str] = []
        self.lost_answers = 0
        self._draw = draw
        self._process: ChildProcess | None = None
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._is_compressed = False  # transport since the last transition configure
        self._jump = dict.fromkeys(CAMERAS, 0)  # clock offset of a camera in ns
        self._guest: Any = None
        self._cameras = {name: self._new_camera(name) for name in CAMERAS}
        for name, ledger in self.ledgers.items():
            self.create_subscription(
                InstanceArray, f"yolact/{name}/instances", receiver(ledger), RESULT_QOS
            )
            self.create_subscription(
                FrameStats,
                f"yolact/{name}/stats",
                lambda stats, to=ledger: to.account(stats, waiting=WAITING),
                RESULT_QOS,
            )
        self._transit: Any = self.create_client(ChangeState, "yolact/change_state")
        self._get_state: Any = self.create_client(GetState, "yolact/get_state")
        self._setter: Any = self.create_client(SetParameters, "yolact/set_parameters")
        self._segment: Any = self.create_client(Segment, "yolact/segment")
        self._keyframe: Any = self.create_client(Trigger, "yolact/force_keyframe")
        self._enable: Any = self.create_client(SetBool, "yolact/set_enabled")

    def watch(self, process: ChildProcess) -> None:
        """Attach to the node of a new process, and wait until it is ready."""
        self._process = process
        self.lost_answers = 0
        self._take_transport(compressed=False)
        for ledger in self.ledgers.values():
            ledger.close(time.time_ns())
        self._wait(self._transit.service_is_ready, "offer its transitions")
        self._wait(self._setter.service_is_ready, "offer its parameters")
        self.activate()

    def close(self) -> None:
        """Destroy the publishers and subscriptions."""
        self._executor.shutdown()
        self.destroy_node()

    def act(self) -> None:
        """Do one random action."""
        actions: dict[Callable[[], None], int] = {
            self.send_images: 60,
            self.set_parameter: 8,
            self.ask: 6,
            self.restart_camera: 3,
            self.change_guest: 3,
            self.change_state: 3,
        }
        (action,) = self._draw.choices(list(actions), list(actions.values()))
        self._count(action.__name__.replace("_", " "))
        action()

    def send_images(self) -> None:
        """Publish some images, good and damaged, in quick succession."""
        for _ in range(self._draw.randrange(1, 20)):
            good = self._draw.random() < 0.7
            self._send(self._draw.choice(CAMERAS), good=good)
            self._spin(self._draw.choice([0.0, 0.0, 0.01, 0.05]))

    def set_parameter(self) -> None:
        """Set a parameter to a value that must be accepted, or to one that must be rejected."""
        if good := self._draw.random() < 0.7:
            name = self._draw.choice(list(GOOD_VALUES))
            value = self._draw.choice(GOOD_VALUES[name])
        else:
            name, value = self._draw.choice(BAD_VALUES)
        self._set(name, value, accepted=good)

    def ask(self) -> None:
        """Call one of the node's services."""
        kind = self._draw.randrange(3)
        if kind == 0:
            good = self._draw.random() < 0.5
            image, _ = random_image(self._draw, Header(), good=good)
            answer = self._call(self._segment, Segment.Request(image=image))
            if answer.success and not good or not answer.success and not answer.message:
                self.faults.append(f"~/segment answered {answer.success}: {answer.message!r}.")
        elif kind == 1:
            self._call(self._keyframe, Trigger.Request())
        else:
            enabled = self._draw.random() < 0.7
            self._call(self._enable, SetBool.Request(data=enabled))

    def restart_camera(self) -> None:
        """Replace a camera's publisher by another one, whose clock may have jumped."""
        name = self._draw.choice(CAMERAS)
        self.destroy_publisher(self._cameras[name])
        self._spin(self._draw.choice([0.0, 0.2]))
        self._jump[name] = self._draw.choice([0, 0, -(10**10), 10**12])
        self._cameras[name] = self._new_camera(name)

    def change_guest(self) -> None:
        """Add a subscriber of some other topic, or remove the last one."""
        if self._guest is not None:
            self.destroy_subscription(self._guest)
            self._guest = None
            return
        topic = self._draw.choice([*image_topics(), *space_topics()])
        name = topic.name.replace("~", f"yolact/{self._draw.choice(CAMERAS)}")
        self._guest = self.create_subscription(topic.kind, name, lambda _: None, 1, raw=True)

    def change_state(self) -> None:
        """Request one transition or several at once, whether or not they are possible."""
        chosen = self._draw.choices(TRANSITIONS, k=self._draw.choice([1, 1, 2, 4]))
        requests = [_transition(number) for number in chosen]
        futures = [self._transit.call_async(request) for request in requests]
        for future, request in zip(futures, requests, strict=True):
            self._answer(self._transit, request, future)
        # Whatever order the node took them in: it may have been active all the time.
        if self._is_in(State.PRIMARY_STATE_ACTIVE):
            return
        for ledger in self.ledgers.values():
            ledger.close(time.time_ns())
        for _ in range(self._draw.randrange(5)):
            self._send(self._draw.choice(CAMERAS), good=True)
        if self._is_in(State.PRIMARY_STATE_UNCONFIGURED):
            self._take_transport(compressed=self._draw.random() < 0.3)
            transport = "compressed" if self._is_compressed else "raw"
            self._set("image_transport", transport, accepted=True)
            self._set("queue_policy", self._draw.choice(["latest", "all"]), accepted=True)
        self.activate()

    def activate(self) -> None:
        """Bring the node to the active state."""

        def is_active() -> bool:
            state = self._current_state()
            if state in FORWARD:
                for ledger in self.ledgers.values():
                    ledger.close(time.time_ns())
                # It may be rejected: an autostarting node makes transitions at the same time.
                self._call(self._transit, _transition(FORWARD[state]))
            return state == State.PRIMARY_STATE_ACTIVE

        self._wait(is_active, "become active")

    def settle(self) -> tuple[float, int, int]:
        """Bring the node to rest, and check that every camera is served and accounted for.

        Returns:
            Memory in MB, threads, and open files of the node.
        """
        self.activate()
        self._set("max_frame_age", 0.0, accepted=True)
        self._set("max_megapixels", 64.0, accepted=True)
        self._call(self._enable, SetBool.Request(data=True))
        for name, ledger in self.ledgers.items():
            self._wait(self._cameras[name].get_subscription_count, f"subscribe to {name}")
            deadline = time.monotonic() + ANSWER_S
            while time.monotonic() < deadline:
                stamp = self._send(name, good=True)
                if self._spin(RESEND_S, partial(ledger.is_last, stamp)):
                    break
            else:
                self.faults.append(f"{name}: no image got a result within {ANSWER_S:.0f} s.")
                continue
            ledger.check_rest()
        assert self._process is not None
        return resources(self._process.pid)

    def _send(self, name: str, *, good: bool) -> Time:
        moment = time.time_ns() + self._jump[name]
        stamp = Time(sec=moment // 10**9, nanosec=moment % 10**9)
        header = Header(stamp=stamp, frame_id=self._draw.choice(["", name, "\n" * 99]))
        make = random_compressed if self._is_compressed else random_image
        message, size = make(self._draw, header, good=good)
        self.ledgers[name].send(stamp, size if good else None)
        self._count("good images" if good else "damaged images")
        self._cameras[name].publish(message)
        return stamp

    def _take_transport(self, *, compressed: bool) -> None:
        self._is_compressed = compressed
        for name in CAMERAS:
            self.destroy_publisher(self._cameras[name])
            self._cameras[name] = self._new_camera(name)

    def _new_camera(self, name: str) -> Any:
        if self._is_compressed:
            return self.create_publisher(CompressedImage, f"{name}/image/compressed", IMAGE_QOS)
        return self.create_publisher(Image, f"{name}/image", IMAGE_QOS)

    def _set(self, name: str, value: Any, *, accepted: bool) -> None:
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        (result,) = self._call(self._setter, request).results
        if result.successful != accepted or not accepted and not result.reason:
            said = "accepted" if result.successful else "refused"
            self.faults.append(f"{name} = {value!r} was {said}: {result.reason!r}.")

    def _is_in(self, state: int) -> bool:
        return self._current_state() == state

    def _current_state(self) -> int:
        answer = self._call(self._get_state, GetState.Request())
        return int(answer.current_state.id)

    def _call(self, client: Any, request: Any) -> Any:
        return self._answer(client, request, client.call_async(request))

    def _answer(self, client: Any, request: Any, future: Any) -> Any:
        """Wait for an answer, and repeat the request if there is none.

        Fast DDS drops an answer whose receiver it has not discovered yet; rclpy then warns.
        """
        futures = [future]

        def answers() -> list[Any]:
            return [each for each in futures if each.done()]

        for _ in range(round(ANSWER_S / REPEAT_S)):
            if self._spin(REPEAT_S, answers):
                answered = answers()[0]
                self.lost_answers += futures.index(answered)
                return answered.result()
            futures.append(client.call_async(request))
        raise BackendError(f"The node did not answer within {ANSWER_S:.0f} s.")

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        if not self._spin(ANSWER_S, condition):
            raise BackendError(f"The node did not {what} within {ANSWER_S:.0f} s.")

    def _spin(self, seconds: float, condition: Callable[[], Any] = lambda: False) -> bool:
        """Spin for some seconds, or until a condition holds; return whether it does."""
        end = time.monotonic() + seconds
        while not condition():
            if self._process is not None and self._process.status is not None:
                raise BackendError(f"The node ended with status {self._process.status}.")
            left = end - time.monotonic()
            self._executor.spin_once(timeout_sec=max(0.0, min(left, 0.05)))
            if left <= 0:
                return bool(condition())
        return True

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def receiver(ledger: Ledger) -> Callable[..., None]:
    """Return a callback for results of one camera, with the arguments that this rclpy passes."""

    def receive(result: InstanceArray, info: Any) -> None:
        ledger.receive(result, info["source_timestamp"])

    if hasattr(Subscription, "CallbackType"):
        return receive
    # Humble's rclpy does not say when a message was published: too late is not detected.
    return lambda result: ledger.receive(result, 0)


def resources(process: int) -> tuple[float, int, int]:
    """Return memory in MB, threads and open files of a process (Linux only)."""
    folder = Path(f"/proc/{process}")
    return memory_mb(process), len(os.listdir(folder / "task")), len(os.listdir(folder / "fd"))


def _transition(number: int) -> ChangeState.Request:
    return ChangeState.Request(transition=Transition(id=number))
