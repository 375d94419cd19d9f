"""Draw the prototypes, and how they add up to masks (YOLACT figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.evaluate.tiles import in_rows, make_tile, stack_rows
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.masks import SoftMasks, assemble_masks
from yolact_ros.runtime.output.draw import draw_detections
from yolact_ros.runtime.preprocess import prepare_image
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.video.tracking import pairwise_box_iou

TILE = (132, 132)  # pixels
COLUMNS = 8
TERMS = 5  # strongest terms of a mask that are drawn


@dataclass(frozen=True, eq=False)
class MaskAssembly:
    """Holds the parts that the masks of one image are assembled from.

    Attributes:
        detections: the N instances.
        prototypes: (Hp, Wp, K) float32, zero or more.
        coefficients: (N, K) float32 in [-1, 1].
        soft: soft masks at the resolution of the prototypes.
    """

    detections: Detections
    prototypes: np.ndarray
    coefficients: np.ndarray
    soft: SoftMasks


def take_apart(segmenter: Segmenter, image: np.ndarray) -> MaskAssembly:
    """Segment an image and return its prototypes, coefficients and soft masks.

    Args:
        segmenter: open segmenter.
        image: (H, W, 3) uint8 BGR.

    Raises:
        BackendError: the backend fails.
    """
    network = segmenter.network
    tensor, _ = prepare_image(image, network.description.model)
    config = network.limited(segmenter.postprocess)
    (run,) = network.submit(network.whole_graph, [{"image": tensor}])
    outputs = run.fetch()
    selection = network.form.select(outputs, config, network.backend)
    prototypes = network.form.prototypes(outputs, None, network.backend)
    soft = assemble_masks(
        prototypes, selection.coefficients, selection.boxes, crop=config.crop_masks
    )
    return MaskAssembly(segmenter.segment(image), prototypes, selection.coefficients, soft)


def draw_assembly_sheet(
    image: np.ndarray, assembly: MaskAssembly, *, class_names: Sequence[str], instances: int = 4
) -> np.ndarray:
    """Draw all prototypes and, below them, how the masks of the best instances add up.

    Each prototype is dark where it is zero, and scaled to its own maximum.

    Args:
        image: (H, W, 3) uint8 BGR.
        assembly: its assembly.
        class_names: name of each class id.
        instances: number of masks to explain.

    Returns:
        (height, width, 3) uint8 BGR.
    """
    planes = np.moveaxis(assembly.prototypes, 2, 0)
    tiles = [
        make_tile(heat(plane), f"p{k}  max {plane.max():.1f}", TILE)
        for k, plane in enumerate(planes)
    ]
    shown = range(min(instances, len(assembly.detections)))
    rows = [draw_assembly(image, assembly, i, class_names=class_names) for i in shown]
    return stack_rows([*in_rows(tiles, COLUMNS), *rows])


def draw_instance(
    segmenter: Segmenter, image: np.ndarray, found: Detections, number: int
) -> np.ndarray | None:
    """Draw how the mask of one chosen instance is assembled, as a row of tiles.

    Args:
        segmenter: open segmenter.
        image: (H, W, 3) uint8 BGR.
        found: detections in the image; with track ids for a video.
        number: a track id, or for a single image the rank by score, from 1.

    Returns:
        (height, width, 3) uint8 BGR; None if the instance is not in the image.
    """
    ids = found.track_ids if found.track_ids is not None else range(1, len(found) + 1)
    chosen = [box for box, i in zip(found.boxes, ids, strict=True) if i == number]
    assembly = take_apart(segmenter, image)
    alone = assembly.detections
    if not (chosen and len(alone)):
        return None
    best = int(np.argmax(pairwise_box_iou(chosen[0][None], alone.boxes)))
    return stack_rows([draw_assembly(image, assembly, best, class_names=alone.class_names)])


def draw_assembly(
    image: np.ndarray, assembly: MaskAssembly, index: int, *, class_names: Sequence[str]
) -> list[np.ndarray]:
    """Draw how one mask is assembled, as a row of tiles.

    Args:
        image: (H, W, 3) uint8 BGR.
        assembly: its assembly.
        index: index of the detection.
        class_names: name of each class id.

    Returns:
        Tiles: image, strongest terms (red adds, blue subtracts), sum of all terms, mask.
    """
    found, coefficients = assembly.detections, assembly.coefficients[index]
    contributions = assembly.prototypes * coefficients
    total = contributions.sum(axis=2)
    strongest = np.argsort(-np.abs(contributions).sum(axis=(0, 1)), kind="stable")[:TERMS]
    limit = np.abs(contributions).max(initial=0.0)
    pictures = [
        (
            draw_detections(image, found[index : index + 1], class_names),
            f"{class_names[found.class_ids[index]]} {found.scores[index]:.2f}",
        ),
        *(
            (diverging(contributions[..., k], limit), f"{coefficients[k]:+.2f} x p{k}")
            for k in strongest
        ),
        (diverging(total, np.abs(total).max(initial=0.0)), "sum of all"),
        (heat(assembly.soft.dense()[index], limit=1.0), "sigmoid, cropped"),
    ]
    return [make_tile(picture, caption, TILE) for picture, caption in pictures]


def heat(values: np.ndarray, *, limit: float | None = None) -> np.ndarray:
    """Colour (H, W) float values from 0 to `limit` (default: their maximum) as (H, W, 3) uint8."""
    top = float(values.max(initial=0.0)) if limit is None else limit
    scaled = np.clip(values * (255 / top if top > 0 else 0), 0, 255).astype(np.uint8)
    return cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS)


def diverging(values: np.ndarray, limit: float) -> np.ndarray:
    """Colour (H, W) float values: white at zero, red at +limit, blue at -limit; BGR uint8."""
    scaled = np.clip(values / (limit or 1.0), -1, 1).astype(np.float32)
    fade = 1 - np.abs(scaled)
    blue = np.where(scaled < 0, 1.0, fade)
    red = np.where(scaled > 0, 1.0, fade)
    return (np.stack([blue, fade, red], axis=-1) * 255).astype(np.uint8)
