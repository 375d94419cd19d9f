"""Expand the masks of messages to their whole image."""

from __future__ import annotations

import numpy as np

from yolact_ros.msg import Instance
from yolact_ros.ros.messages.instances import mask_from_message


def full_mask_from_message(instance: Instance, height: int, *, width: int) -> np.ndarray:
    """Return the (height, width) bool mask; fail if its region exceeds the image."""
    roi = instance.roi
    full = np.zeros((height, width), bool)
    rows = slice(roi.y_offset, roi.y_offset + roi.height)
    full[rows, roi.x_offset : roi.x_offset + roi.width] = mask_from_message(instance)
    return full
