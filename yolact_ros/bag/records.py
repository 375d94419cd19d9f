"""Serialize detections for the journal."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from yolact_ros.runtime.detections import KEYFRAME, PARTIAL, Detections

ARRAYS = ("boxes", "scores", "mask_scores", "class_ids", "mask_rois")


def pack_detections(detections: Detections) -> bytes:
    """Serialize the detections of one image, without track ids and timings."""
    pixels = [mask.ravel() for mask in detections.masks]
    file = BytesIO()
    np.savez(
        file,
        **{name: getattr(detections, name) for name in ARRAYS},
        pixels=np.packbits(np.concatenate([np.zeros(0, bool), *pixels])),
        image_size=np.array(detections.image_size),
        is_keyframe=np.array(detections.frame_type == KEYFRAME),
    )
    return file.getvalue()


def unpack_detections(data: bytes) -> Detections:
    """Deserialize the output of `pack_detections`."""
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        rois = arrays["mask_rois"]
        shapes = [(int(y2 - y1), int(x2 - x1)) for x1, y1, x2, y2 in rois]
        sizes = [height * width for height, width in shapes]
        pixels = np.unpackbits(arrays["pixels"], count=sum(sizes)).view(bool)
        pieces = np.split(pixels, np.cumsum(sizes)[:-1]) if sizes else []
        height, width = arrays["image_size"].tolist()
        return Detections(
            **{name: arrays[name] for name in ARRAYS},
            masks=tuple(piece.reshape(s) for piece, s in zip(pieces, shapes, strict=True)),
            image_size=(height, width),
            frame_type=KEYFRAME if arrays["is_keyframe"] else PARTIAL,
        )
