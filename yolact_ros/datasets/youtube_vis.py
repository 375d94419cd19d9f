"""Convert video annotations in YouTube-VIS format to COCO format for single images.

Format: https://youtube-vos.org/dataset/vis/ - `videos` with `file_names`, and for each object of
a video one annotation with a list of `segmentations`, null where the object is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yolact_ros.errors import DatasetError


def is_video_format(content: Mapping[str, Any]) -> bool:
    """Return whether the content of an annotation file is for videos."""
    return "videos" in content and "images" not in content


def frames_as_images(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert every frame to an image, and every appearance of an object to an annotation.

    Images get `video_id` and `frame`, their index in the video; annotations get
    `track_id`, the id of their object. Image ids follow the order of videos and frames. What
    refers to a video or frame that does not exist keeps an `image_id` of None.

    Args:
        content: content of a YouTube-VIS file; a test set without `annotations` has none.

    Raises:
        DatasetError: a video lacks an id or file names.
    """
    images: list[dict[str, Any]] = []
    first_image: dict[Any, tuple[int, int]] = {}  # video id -> id of its first frame, frames
    if not isinstance(content["videos"], list):
        raise DatasetError("'videos' is not a list.")
    for video in content["videos"]:
        try:
            if not isinstance(video["file_names"], list):
                raise TypeError("file_names")
            names = [str(name) for name in video["file_names"]]
            first_image[video["id"]] = len(images) + 1, len(names)
        except (KeyError, TypeError) as error:
            raise DatasetError("an entry of 'videos' lacks a usable id or file_names.") from error
        size = {key: video[key] for key in ("height", "width") if video.get(key)}
        for frame, name in enumerate(names):
            entry = {"id": len(images) + 1, "file_name": name, **size}
            images.append({**entry, "video_id": video["id"], "frame": frame})
    annotations: list[dict[str, Any]] = []
    tracks = content.get("annotations") or []
    if not isinstance(tracks, list):
        raise DatasetError("'annotations' is not a list.")
    for number, track in enumerate(tracks, start=1):
        if not isinstance(track, Mapping):
            annotations.append(track)  # the reader of the result counts it
            continue
        video_id = track.get("video_id")
        known = isinstance(video_id, (int, str, float))
        first, length = first_image.get(video_id, (None, 0)) if known else (None, 0)
        segmentations = track.get("segmentations") or [{}]
        if not isinstance(segmentations, list):
            segmentations = [{}]
        for frame, segmentation in enumerate(segmentations):
            if segmentation is None:
                continue
            annotation = {
                "id": len(annotations) + 1,
                "image_id": first + frame if first is not None and frame < length else None,
                "category_id": track.get("category_id"),
                "segmentation": segmentation,
                "iscrowd": track.get("iscrowd", 0),
                "track_id": track["id"] if isinstance(track.get("id"), int) else number,
            }
            for key, values in (("bbox", track.get("bboxes")), ("area", track.get("areas"))):
                if isinstance(values, list) and frame < len(values) and values[frame] is not None:
                    annotation[key] = values[frame]
            annotations.append(annotation)
    return {
        "images": images,
        "annotations": annotations,
        "categories": content.get("categories", []),
    }
