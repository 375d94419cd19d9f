"""Hold one segmented image and everything that its topics share, computed at most once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from yolact_ros.ros.messages.images import bgr_from_message, message_from_bgr
from yolact_ros.runtime.depth.objects import DepthView, ObjectPose3D, place_objects
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.draw import draw_on, instance_image, object_name


@dataclass(frozen=True, eq=False)
class Result:
    """Holds one segmented image.

    Attributes:
        header: header of the image.
        image: (H, W, 3) uint8 BGR.
        detections: detections in the image.
        keyframe_stamp: stamp of the image that the features or detections come from.
        class_names: class names of the model, in order.
        score_threshold: class score that every reported object exceeds.
        mask_encoding: a key of `runtime.output.instance_array.MASK_ENCODINGS`.
        camera_info: calibration of the camera, if known.
        find_depth: returns the depth of the image, possibly after a wait; None if there is none.
    """

    header: Header
    image: np.ndarray
    detections: Detections
    keyframe_stamp: Time
    class_names: tuple[str, ...]
    score_threshold: float = 0.0
    mask_encoding: str = "bits"
    camera_info: CameraInfo | None = None
    find_depth: Callable[[], DepthView | None] = lambda: None

    @cached_property
    def overlay(self) -> Image:
        """Return a bgr8 message of the image, in whose memory its detections are drawn."""
        message = message_from_bgr(self.image, self.header)
        draw_on(bgr_from_message(message), self.detections, self.class_names)
        return message

    @cached_property
    def view(self) -> DepthView | None:
        """Return the depth of the image; None if there is none."""
        return self.find_depth()

    @cached_property
    def poses(self) -> list[ObjectPose3D | None] | None:
        """Return the 3-D pose of each detection; None if the image has no depth."""
        return None if self.view is None else place_objects(self.detections, self.view)

    @cached_property
    def instance_image(self) -> np.ndarray:
        """Return the best object's instance id at each pixel, (H, W) uint16; 0 is background."""
        return instance_image(self.detections)

    @property
    def background_score(self) -> float:
        """Return the score of pixels without an object.

        An object with a class score above the threshold would have been reported there, so this
        is a lower bound.
        """
        return 1.0 - self.score_threshold

    def name(self, index: int) -> str:
        """Return the label of a detection: its track id, if any, and its class."""
        return object_name(self.detections, index, class_names=self.class_names)
