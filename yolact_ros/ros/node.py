"""The node: camera images in, instances out."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import rclpy
from builtin_interfaces.msg import Time
from rclpy.event_handler import QoSMessageLostInfo, SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

from yolact_ros.config import KeyframeConfig
from yolact_ros.errors import ConfigError, YolactError
from yolact_ros.ros.images import bgr_from_message
from yolact_ros.ros.mailbox import Mailbox
from yolact_ros.ros.outputs import Outputs, Result, milliseconds_since
from yolact_ros.ros.parameters import (
    FrameSettings,
    LiveSettings,
    ModelSettings,
    declare_constant,
)
from yolact_ros.ros.program import init_ros
from yolact_ros.runtime.bundle import shipped_bundle
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.stream import Stream

NAME = "yolact"
IMAGE = "image"
# Cameras are best effort for their readers (REP 2003). Depth 1: the stock profile's depth of 5
# makes each image 150 ms old at 30 Hz before the network sees it.
IMAGE_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)

THROTTLE_S = 5.0  # between two log lines about bad images
CLOSE_S = 1.5  # for the image in work when the node is told to end


@dataclass(frozen=True)
class Frame:
    """One image as it arrived.

    Attributes:
        message: the image.
        stamp: the node's clock at its arrival.
        arrived: `time.perf_counter()` at its arrival.
    """

    message: Image
    stamp: Time
    arrived: float


class YolactNode(Node):
    """Segments the newest image of a topic, over and over.

    The executor's thread only puts images into a mailbox and answers for parameters. One worker
    thread opens the model, owns it, and publishes.

    Attributes:
        mailbox: between the two threads; its counts are the accounts of all images.
    """

    def __init__(self, announce: Callable[[str], None]) -> None:
        """Declare parameters and topics.

        Args:
            announce: called by the worker with "ready" when it has opened the model and with
                "failed" when it ends because of an error, which it has logged.

        Raises:
            ConfigError: a parameter's value cannot be used.
        """
        super().__init__(NAME)
        self._model = declare_constant(self, ModelSettings())
        self._live = LiveSettings(self, FrameSettings())
        self._keyframes = LiveSettings(self, KeyframeConfig())
        self._announce = announce
        self._outputs = Outputs(self)
        self._keyframe_stamp = Time()
        self._lost = 0
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)
        self.mailbox: Mailbox[Frame] = Mailbox()

    def open(self) -> None:
        """Let the worker open the model."""
        self._worker.start()

    def subscribe(self) -> None:
        """Take images from now on."""
        subscription = self.create_subscription(
            Image,
            IMAGE,
            self._on_image,
            IMAGE_QOS,
            event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_lost),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.get_logger().info(f"Waiting for images on {subscription.topic_name}.")

    def close(self) -> bool:
        """End the worker; False if it is still at work after `CLOSE_S` seconds."""
        self.mailbox.close()
        self._worker.join(CLOSE_S)
        return not self._worker.is_alive()

    def _on_image(self, message: Image) -> None:
        self.mailbox.put(Frame(message, self.get_clock().now().to_msg(), time.perf_counter()))

    def _on_lost(self, info: QoSMessageLostInfo) -> None:
        self._lost = info.total_count

    def _work(self) -> None:
        try:
            with self._open_segmenter() as segmenter:
                stream = segmenter.new_stream(self._keyframes.current)
                self._announce("ready")
                while (frame := self.mailbox.take()) is not None:
                    self._process(frame, segmenter, stream)
        except YolactError as error:
            self._fail(str(error))
        except Exception:  # noqa: BLE001 - whatever it is, the process must not stay as a shell
            self._fail(f"The worker broke down:\n{traceback.format_exc()}")

    def _fail(self, reason: str) -> None:
        self.get_logger().fatal(reason)
        self._announce("failed")

    def _open_segmenter(self) -> Segmenter:
        started = time.perf_counter()
        chosen = self._model.model
        path = Path(chosen).expanduser() if chosen else shipped_bundle()
        segmenter = Segmenter.open(
            path,
            backend=self._model.backend,
            postprocess=self._live.current,
            threads=self._model.threads,
        )
        segmenter.warm_up(self._keyframes.current)
        model = segmenter.description.model
        self.get_logger().info(
            f"Model {model.name} ({len(model.classes)} classes) from {path} is ready after "
            f"{time.perf_counter() - started:.1f} s."
        )
        return segmenter

    def _process(self, frame: Frame, segmenter: Segmenter, stream: Stream) -> None:
        settings = self._live.current
        self._apply_keyframes(stream)
        header = frame.message.header
        started = time.perf_counter()
        try:
            image = bgr_from_message(frame.message)
            decoded = time.perf_counter()
            segmenter.postprocess = settings
            detections = segmenter.segment(image, stream=stream, stamp=seconds_of(header.stamp))
        except YolactError as error:
            self.mailbox.finish(failed=True)
            self.get_logger().error(str(error), throttle_duration_sec=THROTTLE_S)
            return
        if detections.frame_type == "keyframe":
            self._keyframe_stamp = header.stamp
        result = Result(header, image, detections, self._keyframe_stamp)
        class_names = segmenter.description.model.classes
        times = self._outputs.publish(result, class_names, mask_encoding=settings.mask_encoding)
        times["transport_ms"] = milliseconds_since(header.stamp, frame.stamp)
        times["wait_ms"] = (started - frame.arrived) * 1e3
        times["decode_ms"] = (decoded - started) * 1e3
        for stage in ("preprocess", "inference", "postprocess"):
            times[f"{stage}_ms"] = detections.timings[stage]
        counts = self.mailbox.finish()
        self._outputs.publish_stats(result, times, counts=counts, lost=self._lost)

    def _apply_keyframes(self, stream: Stream) -> None:
        """Take over changed parameters; a warp that the model lacks leaves the old ones."""
        wanted = self._keyframes.current
        if stream.config == wanted:
            return
        try:
            stream.config = wanted
        except ConfigError as error:
            self.get_logger().error(str(error), throttle_duration_sec=THROTTLE_S)


def seconds_of(stamp: Time) -> float | None:
    """A stamp in seconds; None for the zero of a camera that does not stamp its images."""
    seconds = stamp.sec + stamp.nanosec * 1e-9
    return float(seconds) if seconds else None


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to end.

    Returns:
        The process's exit status: 0 after SIGINT or SIGTERM, 1 when the node cannot do its work;
        it has then logged why.
    """
    # Signals arrive here as words: Python runs their handlers in this thread, which waits for
    # nothing else; handlers of rclpy would end the context in the middle of a publication.
    events: SimpleQueue[str] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: events.put("told to end"))
    try:
        init_ros(args)
        node = YolactNode(events.put)
    except YolactError as error:
        get_logger(NAME).fatal(str(error))
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor, events), name="executor")
    spinner.start()
    node.open()
    while (event := events.get()) == "ready":
        node.subscribe()
    closed = node.close()
    executor.shutdown()
    spinner.join()
    status = 1 if event == "failed" else 0
    if not closed:
        # The worker is inside the backend, which cannot be interrupted; nothing is left to save.
        node.get_logger().warning("Ending without waiting for the image in work.")
        sys.stderr.flush()
        os._exit(status)
    node.destroy_node()
    rclpy.shutdown()
    return status


def _spin(executor: SingleThreadedExecutor, events: SimpleQueue[str]) -> None:
    try:
        executor.spin()
    except Exception:  # noqa: BLE001 - without an executor the process must not stay as a shell
        get_logger(NAME).fatal(f"The executor broke down:\n{traceback.format_exc()}")
        events.put("failed")
