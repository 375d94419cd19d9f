"""Draw the prototypes, and how they add up to masks (YOLACT figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.masks import SoftMasks, assemble_masks
from yolact_ros.runtime.network import Network
from yolact_ros.runtime.output.draw import draw_detections
from yolact_ros.runtime.preprocess import prepare_image
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.video.tracking import pairwise_box_iou

TILE = 132  # side of one tile in pixels
GAP = 6
LABEL = 18  # height of the line of text above a tile
BACKGROUND = (32, 32, 32)
TEXT = (230, 230, 230)


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
    network: Network = segmenter.network
    tensor, _ = prepare_image(image, network.description.model)
    config = network.limited(segmenter.postprocess)
    outputs = network.backend.run(network.whole_graph, {"image": tensor})
    model, backend = network.description.model, network.backend
    selection = network.form.select(outputs, config, model=model, backend=backend)
    prototypes = network.form.prototypes(outputs, None, model=model, backend=backend)
    soft = assemble_masks(
        prototypes, selection.coefficients, selection.boxes, crop=config.crop_masks
    )
    return MaskAssembly(segmenter.segment(image), prototypes, selection.coefficients, soft)


def draw_assembly_sheet(
    image: np.ndarray,
    assembly: MaskAssembly,
    *,
    class_names: Sequence[str],
    instances: int = 4,
) -> np.ndarray:
    """Draw all prototypes and, below them, how the masks of the best instances add up.

    Args:
        image: (H, W, 3) uint8 BGR.
        assembly: its assembly.
        class_names: name of each class id.
        instances: number of masks to explain.

    Returns:
        (height, width, 3) uint8 BGR.
    """
    grid = draw_prototype_grid(assembly.prototypes)
    found = assembly.detections
    dense = assembly.soft.dense()
    rows = [
        draw_assembly(
            draw_detections(image, found[i : i + 1], class_names),
            assembly.prototypes,
            assembly.coefficients[i],
            dense[i],
            title=f"{class_names[found.class_ids[i]]} {found.scores[i]:.2f}",
        )
        for i in range(min(instances, len(found)))
    ]
    parts = [grid, stack_rows(rows)] if rows else [grid]
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [
            cv2.copyMakeBorder(
                part, 0, 0, 0, width - part.shape[1], cv2.BORDER_CONSTANT, value=BACKGROUND
            )
            for part in parts
        ]
    )


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
    row = draw_assembly(
        draw_detections(image, alone[best : best + 1], alone.class_names),
        assembly.prototypes,
        assembly.coefficients[best],
        assembly.soft.dense()[best],
        title=f"{alone[best].class_name} {alone.scores[best]:.2f}",
    )
    return stack_rows([row])


def draw_prototype_grid(prototypes: np.ndarray, *, columns: int = 8) -> np.ndarray:
    """Draw one tile per prototype, dark where it is zero and scaled to its own maximum.

    Args:
        prototypes: (Hp, Wp, K) float32, zero or more.
        columns: tiles per row.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    tiles = [
        labelled(heat(prototypes[..., k]), f"p{k}  max {prototypes[..., k].max():.1f}")
        for k in range(prototypes.shape[2])
    ]
    return stack_rows([tiles[i : i + columns] for i in range(0, len(tiles), columns)])


def draw_assembly(
    thumbnail: np.ndarray,
    prototypes: np.ndarray,
    coefficients: np.ndarray,
    mask: np.ndarray,
    *,
    title: str,
    terms: int = 5,
) -> list[np.ndarray]:
    """Draw how one mask is assembled, as a row of tiles.

    Args:
        thumbnail: (H, W, 3) uint8 BGR image in which the instance is marked.
        prototypes: (Hp, Wp, K) float32.
        coefficients: (K,) float32 in [-1, 1] of the instance.
        mask: (Hp, Wp) float32 in [0, 1], soft mask cropped to its box.
        title: label of the first tile.
        terms: number of strongest terms to show.

    Returns:
        Tiles: image, strongest terms (red adds, blue subtracts), sum of all terms, mask.
    """
    contributions = prototypes * coefficients
    strength = np.abs(contributions).sum(axis=(0, 1))
    strongest = np.argsort(-strength, kind="stable")[:terms]
    limit = float(np.abs(contributions).max(initial=0.0)) or 1.0
    tiles = [labelled(thumbnail, title)]
    for k in strongest:
        tiles.append(
            labelled(diverging(contributions[..., k], limit), f"{coefficients[k]:+.2f} x p{k}")
        )
    total = contributions.sum(axis=2)
    tiles.append(
        labelled(diverging(total, float(np.abs(total).max(initial=0.0)) or 1.0), "sum of all")
    )
    tiles.append(labelled(heat(mask, limit=1.0), "sigmoid, cropped"))
    return tiles


def heat(values: np.ndarray, *, limit: float | None = None) -> np.ndarray:
    """Colour (H, W) float values from 0 to `limit` (default: their maximum) as (H, W, 3) uint8."""
    top = float(values.max(initial=0.0)) if limit is None else limit
    scaled = np.clip(values * (255 / top if top > 0 else 0), 0, 255).astype(np.uint8)
    return cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS)


def diverging(values: np.ndarray, limit: float) -> np.ndarray:
    """Colour (H, W) float values: white at zero, red at +limit, blue at -limit; BGR uint8."""
    scaled = np.clip(values / limit, -1, 1).astype(np.float32)
    fade = 1 - np.abs(scaled)
    blue = np.where(scaled < 0, 1.0, fade)
    red = np.where(scaled > 0, 1.0, fade)
    return (np.stack([blue, fade, red], axis=-1) * 255).astype(np.uint8)


def labelled(picture: np.ndarray, text: str) -> np.ndarray:
    """Fit a picture into a tile below a line of text, keeping its aspect ratio."""
    height, width = picture.shape[:2]
    scale = min(TILE / width, TILE / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    tile = np.full((LABEL + TILE, TILE, 3), BACKGROUND, np.uint8)
    x, y = (TILE - size[0]) // 2, LABEL + (TILE - size[1]) // 2
    tile[y : y + size[1], x : x + size[0]] = cv2.resize(picture, size, interpolation=interpolation)
    cv2.putText(tile, text, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, TEXT, 1, cv2.LINE_AA)
    return tile


def stack_rows(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Arrange rows of equal tiles on one sheet."""
    columns = max((len(row) for row in rows), default=0)
    height, width = LABEL + TILE, TILE
    sheet = np.full(
        (GAP + len(rows) * (height + GAP), GAP + columns * (width + GAP), 3), BACKGROUND, np.uint8
    )
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            y, x = GAP + i * (height + GAP), GAP + j * (width + GAP)
            sheet[y : y + height, x : x + width] = tile
    return sheet
