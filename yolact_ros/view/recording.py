"""Results as a recording for the Rerun viewer (https://rerun.io)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import rerun as rr

from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.output.draw import class_colour

TIMELINE = "stamp"
FRAMES = "frame"


class Recording:
    """Pictures, masks, boxes, track ids and timings on one timeline."""

    def __init__(self, class_names: tuple[str, ...], *, path: Path | None) -> None:
        """Begin.

        Args:
            class_names: of the model.
            path: `.rrd` file to write; None opens the viewer.
        """
        self._stream = rr.RecordingStream("yolact_ros")
        if path is None:
            self._stream.spawn()
        else:
            self._stream.save(str(path))
        self._frame = 0
        # Class 0 is the background, as in the node's label images.
        classes = [rr.AnnotationInfo(0, "background", (0, 0, 0))]
        for number, name in enumerate(class_names):
            blue, green, red = class_colour(number)
            classes.append(rr.AnnotationInfo(number + 1, name, (red, green, blue)))
        self._stream.log("picture", rr.AnnotationContext(classes), static=True)

    def log(self, image: np.ndarray, found: Detections, stamp: float | None) -> None:
        """Add one image, (H, W, 3) uint8 BGR, and what was found in it."""
        self._stream.set_time(FRAMES, sequence=self._frame)
        if stamp is not None:
            self._stream.set_time(TIMELINE, duration=stamp)
        self._frame += 1
        self._stream.log("picture", rr.Image(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).compress())
        self._stream.log("picture/masks", rr.SegmentationImage(label_image(found)))
        labels = [
            f"{'' if not i.track_id else f'#{i.track_id} '}{i.class_name} {i.mask_score:.2f}"
            for i in found
        ]
        self._stream.log(
            "picture/boxes",
            rr.Boxes2D(
                array=found.boxes,
                array_format=rr.Box2DFormat.XYXY,
                class_ids=found.class_ids + 1,
                labels=labels,
            ),
        )
        for stage, milliseconds in found.timings.items():
            self._stream.log(f"milliseconds/{stage}", rr.Scalars(milliseconds))

    def close(self) -> None:
        """Write what is still in memory."""
        self._stream.flush()
        self._stream.disconnect()


def label_image(found: Detections) -> np.ndarray:
    """(H, W) uint16: class id + 1 of the best instance at each pixel, 0 for the background."""
    labels = np.zeros(found.image_size, np.uint16)
    for instance in reversed(list(found)):
        x1, y1, x2, y2 = instance.mask_roi
        labels[y1:y2, x1:x2][instance.crop] = instance.class_id + 1
    return labels
