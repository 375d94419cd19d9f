"""Record results for the Rerun viewer (https://rerun.io)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from yolact_ros.errors import ConfigError, MessageError
from yolact_ros.runtime.depth.objects import DepthView, place_objects, points_of
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.images.encodings import convert_colors
from yolact_ros.runtime.output.draw import class_colour, class_image

PROTOTYPES = "prototypes"
SPACE = "space"  # entity of the camera's optical frame
# Names that Rerun uses for the stamps of a bag's messages and for the times of their recording.
ROS_TIME, BAG_TIME = "ros2_timestamp", "message_log_time"


class Recording:
    """Records images, masks, boxes, track ids, points and timings on common timelines."""

    def __init__(self, path: Path | None) -> None:
        """Start a recording.

        Args:
            path: `.rrd` file to write; None opens the viewer.

        Raises:
            ConfigError: the file cannot be made, or there is no viewer.
        """
        self._stream = rr.RecordingStream("yolact_ros")
        self._path = path
        try:
            if path is None:
                self._stream.spawn()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._stream.save(str(path))
        except (OSError, RuntimeError) as error:  # Rerun has no type of its own
            raise self._fault(error) from error
        self._frame = 0
        self._names: dict[int, str] = {}

    def arrange(self, image: str, *, space: bool = False, prototypes: bool = False) -> None:
        """Lay out the viewer: the image with masks and boxes, and beside it everything else.

        Args:
            image: entity of the image.
            space: there are points or boxes in space.
            prototypes: there are pictures of prototypes.
        """
        column: list[rrb.View] = [rrb.TimeSeriesView(origin="milliseconds", name="milliseconds")]
        if space:
            self._stream.log(SPACE, rr.ViewCoordinates.RDF, static=True)  # right, down, forward
            column.insert(0, rrb.Spatial3DView(origin=SPACE, name=SPACE))
        if prototypes:
            column.append(rrb.Spatial2DView(origin=PROTOTYPES, name=PROTOTYPES))
        views = rrb.Horizontal(
            rrb.Spatial2DView(origin=image, name=image),
            rrb.Vertical(*column),
            column_shares=[2, 1],
        )
        self._stream.send_blueprint(rrb.Blueprint(views, collapse_panels=True))

    def name_classes(self, names: Mapping[int, str]) -> None:
        """Set the names and colours of labels, which count from 1; earlier ones are kept."""
        if names.items() <= self._names.items():
            return
        self._names.update(names)
        classes = [rr.AnnotationInfo(0, "background", (0, 0, 0, 0))]
        for label, name in sorted(self._names.items()):
            classes.append(rr.AnnotationInfo(label, name, class_colour(label - 1)[::-1]))
        self._stream.log("/", rr.AnnotationContext(classes), static=True)

    def next_frame(self) -> None:
        """Start the next image: everything logged from now on belongs to it."""
        self._stream.reset_time()
        self._stream.set_time("frame", sequence=self._frame)
        self._frame += 1

    def set_stamp(self, seconds: float) -> None:
        """Set the time since a video's start."""
        self._stream.set_time("stamp", duration=seconds)

    def set_ros_time(self, stamp: int, recorded: int | None = None) -> None:
        """Set the stamp of a message and the time of its recording, in nanoseconds since 1970."""
        self._stream.set_time(ROS_TIME, timestamp=np.datetime64(stamp, "ns"))
        if recorded is not None:
            self._stream.set_time(BAG_TIME, timestamp=np.datetime64(recorded, "ns"))

    def import_file(self, path: Path) -> None:
        """Add everything that Rerun can read from a file, e.g. all topics of a `.mcap`."""
        self._stream.log_file_from_path(path)

    def log_detections(self, entity: str, found: Detections) -> None:
        """Add the detections in an image and the time that they took."""
        self.log_masks(entity, class_image(found))
        ids = [i.track_id or 0 for i in found]
        names = [f"{i.class_name} {i.score:.2f}" for i in found]
        self.log_boxes(entity, found.boxes, found.labels.tolist(), names, ids)
        self.log_timings(found.timings)

    def log_image(self, entity: str, image: np.ndarray) -> None:
        """Add an image, (H, W, 3) uint8 BGR."""
        self._stream.log(entity, rr.Image(convert_colors(image, cv2.COLOR_BGR2RGB)).compress())

    def log_masks(self, entity: str, labels: np.ndarray) -> None:
        """Add the label of each pixel of an image, (H, W) unsigned; 0 is the background."""
        self._stream.log(f"{entity}/masks", rr.SegmentationImage(labels, opacity=0.5))

    def log_boxes(
        self,
        entity: str,
        boxes: np.ndarray,
        labels: Sequence[int],
        names: Sequence[str],
        track_ids: Sequence[int],
    ) -> None:
        """Add the boxes of an image.

        Args:
            entity: path of the image.
            boxes: (N, 4) float, x1 y1 x2 y2 in pixels.
            labels: N labels, from 1.
            names: N texts.
            track_ids: N ids; 0 for none.
        """
        texts = [f"#{i} {name}" if i else name for i, name in zip(track_ids, names, strict=True)]
        self._stream.log(
            f"{entity}/boxes",
            rr.Boxes2D(
                array=np.reshape(boxes, (-1, 4)),
                array_format=rr.Box2DFormat.XYXY,
                class_ids=labels,
                labels=texts,
            ),
        )

    def log_timings(self, milliseconds: Mapping[str, float]) -> None:
        """Add the duration of each stage."""
        for stage, value in milliseconds.items():
            self._stream.log(f"milliseconds/{stage}", rr.Scalars(value))

    def log_points(self, points: np.ndarray, colors: np.ndarray) -> None:
        """Add 3-D points, (N, 3) in metres, with (N, 3) uint8 RGB colours."""
        self._stream.log(f"{SPACE}/points", rr.Points3D(points, colors=colors))

    def log_boxes_3d(self, centers: np.ndarray, sizes: np.ndarray, names: Sequence[str]) -> None:
        """Add axis-aligned 3-D boxes: (N, 3) centres and (N, 3) sides in metres."""
        boxes = rr.Boxes3D(centers=centers, sizes=sizes, labels=names)
        self._stream.log(f"{SPACE}/boxes", boxes)

    def log_objects_3d(self, found: Detections, view: DepthView) -> None:
        """Add the 3-D points and boxes of the detections in an image.

        Raises:
            MessageError: the depth image and the image differ in size.
        """
        if view.metres.shape != found.image_size:
            raise MessageError("its depth image has a different size.")
        points, colors = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
        centers, sizes, names = [], [], []
        for index, pose in enumerate(place_objects(found, view)):
            if pose is None:
                continue
            x, y = pose.origin
            height, width = pose.inside.shape
            region = slice(y, y + height), slice(x, x + width)
            points.append(points_of(view.rays[region], view.metres[region], pose.inside).T)
            color = class_colour(int(found.class_ids[index]))[::-1]
            colors.append(np.full((len(points[-1]), 3), color, np.uint8))
            centers.append((pose.low + pose.high) / 2)
            sizes.append(pose.high - pose.low)
            names.append(found[index].class_name)
        self.log_points(np.concatenate(points), np.concatenate(colors))
        self.log_boxes_3d(np.reshape(centers, (-1, 3)), np.reshape(sizes, (-1, 3)), names)

    def close(self) -> None:
        """Write buffered data.

        Raises:
            ConfigError: the viewer is gone, or was never there; or the disk is full.
        """
        try:
            self._stream.flush()
        except RuntimeError as error:
            raise self._fault(error) from error
        finally:
            self._stream.disconnect()

    def _fault(self, error: Exception) -> ConfigError:
        if self._path is None:
            return ConfigError(f"The Rerun viewer does not answer: {error}.")
        return ConfigError(f"{self._path} cannot be written: {error}. Check free disk space.")
