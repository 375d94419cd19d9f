"""Offer the node's services: segment an image, request a keyframe, pause."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from yolact_ros.errors import YolactError
from yolact_ros.ros.inputs.camera import wake_executor
from yolact_ros.ros.inputs.mailbox import Inbox, Mailbox
from yolact_ros.ros.messages.images import bgr_from_message
from yolact_ros.ros.messages.instances import message_from_detections
from yolact_ros.ros.parameters.settings import Settings
from yolact_ros.runtime.output.instance_array import MASK_ENCODINGS
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.srv import Segment

SEGMENT = "~/segment"
FORCE_KEYFRAME = "~/force_keyframe"
SET_ENABLED = "~/set_enabled"
MOST_WAITING = 8  # maximum number of pending ~/segment requests; each holds an image
NOT_ACTIVE = "The node is not active; activate it first: ros2 lifecycle set {name} activate"
DEACTIVATED = "The node was deactivated before the image's turn; activate it and call again."


class SegmentRequest:
    """Holds one requested image; answered once, by the worker or by `give_up`."""

    def __init__(self, image: Image, wake: Callable[[], None]) -> None:
        """Create a request.

        Args:
            image: the image.
            wake: called once there is an answer, by the thread that provides it.
        """
        self.answer: Future[Segment.Response] = Future()
        self._image = image
        self._wake = wake
        self._lock = threading.Lock()

    def work(self, segmenter: Segmenter, settings: Settings) -> None:
        """Segment the image; any failure becomes the answer and affects nothing else."""
        if self.answer.done():
            return
        try:
            image = bgr_from_message(self._image)
            result = message_from_detections(
                segmenter.segment(image, postprocess=settings.frames),
                segmenter.description.model.classes,
                header=self._image.header,
                keyframe_stamp=self._image.header.stamp,
                mask_encoding=MASK_ENCODINGS[settings.frames.mask_encoding],
            )
        except YolactError as error:
            self.give_up(str(error))
        except Exception as error:  # noqa: BLE001 - the one who asked must not wait for ever
            self.give_up(f"The model failed: {type(error).__name__}: {error}")
        else:
            self._give(Segment.Response(success=True, instances=result))

    def give_up(self, reason: str) -> None:
        """Answer that there is no result, unless already answered."""
        self._give(Segment.Response(success=False, message=reason))

    def _give(self, response: Segment.Response) -> None:
        with self._lock:
            if self.answer.done():
                return
            self.answer.set_result(response)
        self._wake()


class Services:
    """Provides the node's services for the lifetime of the node.

    Calls do not block the executor: images go to the worker, which answers when it is done.
    """

    def __init__(
        self,
        node: Node,
        *,
        request_keyframe: Callable[[], bool],
        set_enabled: Callable[[bool], str],
    ) -> None:
        """Create the services.

        Args:
            node: node that owns the services.
            request_keyframe: makes the next image of every camera a keyframe; returns False if the
                node accepts no images.
            set_enabled: enables or disables the images; returns a message on the effect.
        """
        self._node = node
        self._request_keyframe = request_keyframe
        self._set_enabled = set_enabled
        self._inbox: Inbox[Any] | None = None
        self._requests: Mailbox[Any] | None = None  # a mailbox of that inbox
        self._mailbox: Mailbox[Any] | None = None  # the same while requests are accepted
        self._waiting: set[SegmentRequest] = set()
        # In its own callback group: while one request waits for the worker, others are answered.
        node.create_service(  # type: ignore[misc]  # its type is generated
            Segment, SEGMENT, self._on_segment, callback_group=ReentrantCallbackGroup()
        )
        node.create_service(Trigger, FORCE_KEYFRAME, self._on_force_keyframe)
        node.create_service(SetBool, SET_ENABLED, self._on_set_enabled)

    def open(self, inbox: Inbox[Any]) -> None:
        """Pass requests to a worker from now on; they take turns with the cameras' images."""
        if self._inbox is not inbox:
            self._inbox, self._requests = inbox, inbox.new_mailbox(keep=MOST_WAITING)
        self._mailbox = self._requests

    def close(self) -> None:
        """Reject pending and further requests because no worker is running."""
        self._mailbox = None
        for pending in list(self._waiting):
            pending.give_up(DEACTIVATED)

    async def _on_segment(
        self, request: Segment.Request, response: Segment.Response
    ) -> Segment.Response:
        mailbox = self._mailbox
        if mailbox is None:
            name = self._node.get_fully_qualified_name()
            return Segment.Response(success=False, message=NOT_ACTIVE.format(name=name))
        if mailbox.is_full:
            message = (
                f"{MOST_WAITING} images are already waiting; retry when one has been answered."
            )
            return Segment.Response(success=False, message=message)
        pending = SegmentRequest(request.image, partial(wake_executor, self._node))
        self._waiting.add(pending)
        try:
            mailbox.put(pending)
            if self._mailbox is not mailbox:  # closed at this moment, and the request dropped
                pending.give_up(DEACTIVATED)
            answer = await pending.answer
            assert answer is not None
            return answer
        finally:
            self._waiting.discard(pending)

    def _on_force_keyframe(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success = self._request_keyframe()
        name = self._node.get_fully_qualified_name()
        response.message = "" if response.success else NOT_ACTIVE.format(name=name)
        return response

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        response.success = True
        response.message = self._set_enabled(request.data)
        return response
