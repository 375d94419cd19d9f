"""One segmented image, and what several topics show of it, made at most once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.draw import draw_detections


@dataclass(frozen=True, eq=False)
class Result:
    """One segmented image.

    Attributes:
        header: of the image.
        image: (H, W, 3) uint8 BGR.
        detections: what was found in it.
        keyframe_stamp: stamp of the image that the deep features come from.
        class_names: name of each class id.
        mask_encoding: a key of `runtime.mask_encodings.MASK_ENCODINGS`.
    """

    header: Header
    image: np.ndarray
    detections: Detections
    keyframe_stamp: Time
    class_names: tuple[str, ...]
    mask_encoding: str = "bits"

    @cached_property
    def best_first(self) -> list[int]:
        """Indices of the detections in the order of `~/instances`: instance_id 1 is the first."""
        return np.argsort(-self.detections.mask_scores, kind="stable").tolist()

    @cached_property
    def overlay(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR, the image with its detections drawn on it."""
        return draw_detections(self.image, self.detections, self.class_names)
