"""Define the managed node: camera images in, instances out."""

from __future__ import annotations

import functools
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from yolact_ros.errors import YolactError
from yolact_ros.ros.diagnostics.health import ACTIVE
from yolact_ros.ros.diagnostics.publisher import CameraWindow, Diagnostics
from yolact_ros.ros.inputs.camera import CameraInput
from yolact_ros.ros.inputs.depth import DepthInput
from yolact_ros.ros.inputs.mailbox import Inbox
from yolact_ros.ros.outputs.publishers import Outputs
from yolact_ros.ros.parameters.declare import NodeParameters, declare_constant
from yolact_ros.ros.parameters.settings import Settings, StartSettings
from yolact_ros.ros.pipeline import Pipeline
from yolact_ros.ros.services import Services
from yolact_ros.ros.worker import Worker
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.network import check_postprocess
from yolact_ros.runtime.stream import choose_warp

NAME = "yolact"
# Maximum wait for the image being processed: when the node is deactivated, and when its process
# is asked to end, which must not take 2 s.
PATIENCE_S = 10.0
CLOSE_S = 0.5
STEP_S = 0.05

# Events that the node announces to its process.
BROKEN = "broken"  # the model was given up; deactivating the node takes it to unconfigured
FINALIZED = "finalized"  # after the transition shutdown; there is no way back

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR

Transition = Callable[["YolactNode", LifecycleState], TransitionCallbackReturn]


def explained(transition: Transition) -> Transition:
    """Log why a transition fails; rclpy would silently turn an exception into an error."""

    @functools.wraps(transition)
    def run(node: YolactNode, state: LifecycleState) -> TransitionCallbackReturn:
        name = transition.__name__.removeprefix("on_")
        try:
            return transition(node, state)
        except YolactError as error:
            if node.is_ending():
                node.get_logger().info(f"Did not {name}: {error}")
            else:
                node.get_logger().fatal(f"Could not {name}: {error}")
            node.diagnostics.fault = f"Could not {name}: {error}"
            return FAILURE
        except Exception:  # noqa: BLE001 - the state machine continues with error processing
            node.get_logger().fatal(f"{name} crashed:\n{traceback.format_exc()}")
            node.diagnostics.fault = f"{name} crashed: {traceback.format_exc(limit=0)}"
            return ERROR

    return run


class YolactNode(LifecycleNode):
    """Segments the newest images of one or more cameras continuously.

    The executor's thread only puts images into mailboxes and handles parameters and
    transitions. One worker thread opens the model, owns it, and publishes.

    Transitions: `configure` reads the parameters and opens the model, `activate` subscribes,
    `deactivate` accepts no more images and finishes the current one, `cleanup` frees the model.

    Attributes:
        autostart: whether the process is to configure and activate the node.
        parameters: the node's parameters.
        pipelines: one per camera while the node is configured.
        is_active: whether images are accepted, unless that is disabled.
        is_enabled: whether images are accepted while the node is active; set by ~/set_enabled.
        diagnostics: the publisher of /diagnostics.
        is_ending: returns whether the process is to end.
        has_worked: whether the model that was given up had ever segmented an image.
    """

    def __init__(
        self,
        announce: Callable[[str], None] = lambda event: None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Declare the parameters.

        Args:
            announce: called with `BROKEN` or `FINALIZED`, from any thread.
            interrupted: whether the process is to end; lets a long `configure` end early.

        Raises:
            ConfigError: a parameter has an invalid value.
        """
        super().__init__(NAME)
        self.autostart = declare_constant(self, StartSettings()).autostart
        self.parameters = NodeParameters(self, Settings())
        self.diagnostics = Diagnostics(self, lambda: self.parameters.current.diagnostics)
        self.pipelines: list[Pipeline] = []
        self.is_active = False
        self.is_enabled = True
        self.has_worked = False
        self.is_ending = interrupted
        self._ending_since = 0.0
        self._announce = announce
        self._inbox: Inbox[Any] = Inbox()
        self._worker: Worker | None = None
        self._taking = threading.Lock()
        self._requests = Services(
            self, request_keyframe=self._request_keyframe, set_enabled=self._set_enabled
        )
        self._is_broken = False

    def _LifecycleNodeMixin__change_state(self, transition: int) -> TransitionCallbackReturn:
        """Reject a transition that the state does not allow, as rclpy does since Kilted.

        This method of rclpy serves the triggers and the service. In Humble and Jazzy it lets the
        error through, which would end the executor or the thread that triggered the transition.
        """
        try:
            return super()._LifecycleNodeMixin__change_state(transition)  # type: ignore[misc]
        except RuntimeError as error:  # rclpy does not export the class of this error
            self.get_logger().error(f"Transition {transition} is not possible now: {error}")
            return ERROR

    @explained
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, open the model, run it once, and advertise the results."""
        settings = self.parameters.freeze()
        self._is_broken = False
        self.diagnostics.fault = ""
        self.diagnostics.state = "configuring"
        self._inbox = Inbox()
        self._worker = Worker(
            self, self._inbox, settings=lambda: self.parameters.current, on_broken=self._give_up
        )
        try:
            description = self._worker.open(
                interrupted=self.is_ending, report=self._report_configuring
            )
            for name in settings.inputs.cameras:
                pipeline = self._pipeline(name, settings)
                self.pipelines.append(pipeline)
                pipeline.outputs.publish_labels(
                    description.model.classes, threshold=settings.frames.score_threshold
                )
            self._worker.serve(self.pipelines)
            self.diagnostics.model = description
            self.diagnostics.backend = self._worker.backend_name
            self.diagnostics.gauges = [
                CameraWindow(p.camera, p.meter, p.outputs.space_counts) for p in self.pipelines
            ]
            self.diagnostics.state = "inactive"
            self.parameters.guard(functools.partial(check_model, description))
        except BaseException:
            self.release()
            raise
        return super().on_configure(state)

    @explained
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start accepting images."""
        self._inbox.open()
        for pipeline in self.pipelines:
            pipeline.outputs.resume()
        self._requests.open(self._inbox)
        self.is_active = True
        try:
            self._take_images()
        except BaseException:
            self._stop_taking()
            raise
        return super().on_activate(state)

    @explained
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop accepting images and wait for the current one; fail if the model is broken."""
        self._stop_taking()
        if self._is_broken:
            return ERROR
        return super().on_deactivate(state)

    @explained
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and destroy the publishers."""
        return super().on_cleanup(state) if self.release() else ERROR

    @explained
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the node cannot be configured again."""
        self._stop_taking()
        released = self.release()
        self._announce(FINALIZED)
        return super().on_shutdown(state) if released else ERROR

    @explained
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; on success the node is unconfigured and can be configured again."""
        self._stop_taking()
        if self.release():
            return SUCCESS
        self._announce(FINALIZED)
        return FAILURE

    def release(self) -> bool:
        """Free the model and destroy the publishers; return False if the backend is stuck.

        A stuck thread cannot be interrupted and keeps holding the model.
        """
        ended = self._worker is None or self._wait_for(self._worker.end)
        if ended:
            self._worker = None
        for pipeline in self.pipelines:
            pipeline.close()
        self.pipelines = []
        self.diagnostics.gauges = ()
        self.diagnostics.model = None
        self.diagnostics.state = "unconfigured"
        self.parameters.thaw()
        if not ended:
            self.get_logger().error("The backend does not return.")
        return ended

    def recover_from_lost_message(self) -> None:
        """Resubscribe to the topic whose message did not fit into memory.

        Called by the executor's thread. rclpy does not free the callback group of a message that
        it could not take, so the subscription would otherwise stay silent.
        """
        for pipeline in self.pipelines:
            for topic in pipeline.abandon_take():
                self.get_logger().error(f"Out of memory while receiving a message on {topic}.")
        self._take_images()

    def _pipeline(self, camera: str, settings: Settings) -> Pipeline:
        """Create the pipeline of one camera."""
        keeps_all = settings.inputs.queue_policy == "all"
        depth: DepthInput | None = None

        def follow_demand() -> None:
            if depth is not None:
                depth.follow_demand()

        outputs = Outputs(self, camera, keeps_all=keeps_all, on_demand=follow_demand)
        depth = DepthInput(
            self,
            camera,
            keeps_all=keeps_all,
            needs_depth=outputs.needs_depth,
            needs_info=outputs.needs_info,
            transport=settings.inputs.depth_transport,
        )
        images = CameraInput(self, camera, inbox=self._inbox, settings=settings.inputs)
        return Pipeline(images, outputs, depth)

    def _report_configuring(self, what: str) -> None:
        self.diagnostics.state = f"configuring: {what}"

    def _take_images(self) -> None:
        """Subscribe if the node is active and enabled; unsubscribe otherwise."""
        with self._taking:
            wanted = self.is_active and self.is_enabled
            for pipeline in self.pipelines:
                if wanted:
                    pipeline.camera.subscribe()
                else:
                    pipeline.camera.unsubscribe()
            if self.is_active:
                self.diagnostics.state = ACTIVE if wanted else "disabled by ~/set_enabled"
            elif self.pipelines:
                self.diagnostics.state = "inactive"

    def _set_enabled(self, enabled: bool) -> str:
        self.is_enabled = enabled
        self._take_images()
        if not self.is_active:
            images = "images" if enabled else "no images"
            return f"The node is not active; once it is, it will accept {images}."
        return "Accepting images." if enabled else "Not accepting images; the model stays open."

    def _request_keyframe(self) -> bool:
        for pipeline in self.pipelines:
            pipeline.request_keyframe()
        return self.is_active

    def _stop_taking(self) -> None:
        self.is_active = False
        self._requests.close()
        self._take_images()
        ends = [self._inbox.close, *(pipeline.outputs.pause for pipeline in self.pipelines)]
        if not all([self._wait_for(end) for end in ends]):
            self.get_logger().warning("The current image is not finished yet.")

    def _wait_for(self, ended: Callable[[float], bool]) -> bool:
        """Wait until `ended`, which itself waits for the given number of seconds, returns true."""
        started = time.monotonic()
        while not ended(STEP_S):
            now = time.monotonic()
            if self.is_ending():  # from then on, all waits share CLOSE_S
                self._ending_since = self._ending_since or now
                if now - self._ending_since > CLOSE_S:
                    return False
            elif now - started > PATIENCE_S:
                return False
        return True

    def _give_up(self, reason: str) -> None:
        if self._is_broken:
            return
        self._is_broken = True
        self.has_worked = any(p.camera.mailbox.counts().processed for p in self.pipelines)
        self.get_logger().error(reason)
        self.diagnostics.fault = reason
        self._announce(BROKEN)


def check_model(description: ModelDescription, settings: Settings) -> None:
    """Check that a model supports the settings.

    Raises:
        ConfigError: the model does not support them.
    """
    check_postprocess(settings.frames, description)
    choose_warp(settings.keyframes, description)
