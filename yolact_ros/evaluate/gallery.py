"""Draw mistakes: ground truth beside detections, on the relevant part of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from pycocotools import mask as rle_masks

from yolact_ros.evaluate.charts import new_figure
from yolact_ros.evaluate.mistakes import INVENTED, MISSED, WRONG_CLASS, Mistake

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = 36  # characters of a file name that fit into a caption
PANEL, GAP = 200, 6  # pixels
CASE_INCHES = 4.0, 2.5  # width and height, with the caption
COLUMNS = 3
CONTEXT = 0.6  # margin around the boxes, as a fraction of their longer side
SMALLEST_WINDOW = 64  # pixels of the image

PAPER, BEYOND = 255, 235  # grey levels between the panels, and outside the image
INK = (30, 30, 30)
TRUE_COLOUR, FALSE_COLOUR, OTHER_COLOUR = (80, 200, 60), (60, 60, 235), (230, 230, 230)  # BGR
OPACITY = 0.4

Window = tuple[int, int, int, int]


def draw_gallery(
    cases: Sequence[tuple[np.ndarray, Mistake, str]], names: Sequence[str], *, title: str
) -> Figure:
    """Draw cases, at least one, in rows below a title, with a caption above each.

    Args:
        cases: whole image, (H, W, 3) uint8 BGR, mistake to show, and file name of the image.
        names: class names by class id.
        title: title of the picture.

    Raises:
        BackendError: matplotlib is not installed.
    """
    rows = math.ceil(len(cases) / COLUMNS)
    figure = new_figure(COLUMNS * CASE_INCHES[0], rows * CASE_INCHES[1] + 0.6)
    figure.suptitle(f"{title}\nleft: ground truth, right: detected", fontsize=10)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (image, mistake, file_name) in zip(grid, cases, strict=False):
        axes.imshow(draw_case(image, mistake)[..., ::-1])
        caption = "\n".join(describe_mistake(mistake, file_name=file_name, names=names))
        axes.set_title(caption, fontsize=7, parse_math=False)  # names may contain $
    return figure


def draw_case(image_bgr: np.ndarray, mistake: Mistake) -> np.ndarray:
    """Draw one mistake, with the ground truth on the left and the detections on the right.

    The true instance is filled in green and the detection in red; outlines show the other
    instances and detections.

    Args:
        image_bgr: (H, W, 3) uint8, whole image.
        mistake: mistake to show.

    Returns:
        (200, 406, 3) uint8 BGR.
    """
    sides = (
        (mistake.image.truth, mistake.truth, TRUE_COLOUR),
        (mistake.image.found, mistake.found, FALSE_COLOUR),
    )
    window = choose_window([rows[i]["bbox"] for rows, i, _ in sides if i is not None])
    left, right = (_draw_side(image_bgr, window, *side) for side in sides)
    return np.hstack([left, np.full((PANEL, GAP, 3), PAPER, np.uint8), right])


def describe_mistake(mistake: Mistake, *, file_name: str, names: Sequence[str]) -> tuple[str, str]:
    """Return two lines of text: what is wrong, and where."""
    image = mistake.image
    true_name = found_name = ""
    if mistake.truth is not None:
        true_name = names[image.truth[mistake.truth]["category_id"]]
    if mistake.found is not None:
        row = image.found[mistake.found]
        found_name = f"{names[row['category_id']]} {row['score']:.2f}"
    where = file_name if len(file_name) <= NAME else f"..{file_name[2 - NAME :]}"
    if mistake.kind == MISSED:
        near = _nearest(image.iou[:, mistake.truth], image.found, names)
        return f"{true_name} missed", f"{where}, {mistake.weight:.0f} pixels{near}"
    if mistake.kind == INVENTED:
        near = _nearest(image.iou[mistake.found], image.truth, names)
        return f"{found_name} is not there", f"{where}{near or ', on background'}"
    if mistake.kind == WRONG_CLASS:
        return f"{true_name} detected as {found_name}", f"{where}, IoU {mistake.iou:.2f}"
    return f"{found_name}, IoU {mistake.iou:.2f}", where


def choose_window(boxes: Sequence[Sequence[float]]) -> Window:
    """Choose a square around boxes, with a margin; it may extend beyond the image.

    Args:
        boxes: x y width height in pixels, as in COCO; at least one.

    Returns:
        x1 y1 x2 y2 in pixels, half-open.
    """
    starts, sizes = np.split(np.array(boxes, np.float64), 2, axis=1)
    low, high = starts.min(axis=0), (starts + sizes).max(axis=0)
    side = round(max(SMALLEST_WINDOW, (1 + CONTEXT) * float((high - low).max())))
    x, y = np.rint((low + high - side) / 2).astype(int).tolist()
    return x, y, x + side, y + side


def _nearest(iou: np.ndarray, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    if not len(iou) or iou.max() <= 0:
        return ""
    best = int(iou.argmax())
    return f", IoU {iou[best]:.2f} with {names[rows[best]['category_id']]}"


def _draw_side(
    image_bgr: np.ndarray,
    window: Window,
    rows: Sequence[dict[str, Any]],
    shown: int | None,
    colour: tuple[int, int, int],
) -> np.ndarray:
    side = window[2] - window[0]
    method = cv2.INTER_AREA if side > PANEL else cv2.INTER_CUBIC
    panel = cv2.resize(_cut(image_bgr, window, fill=BEYOND), (PANEL, PANEL), interpolation=method)
    for number, row in enumerate(rows):
        if number != shown:
            _draw_outline(panel, _panel_mask(row, window), OTHER_COLOUR, 1)
    if shown is not None:
        mask = _panel_mask(rows[shown], window)
        solid = np.full_like(panel, colour)
        cv2.copyTo(cv2.addWeighted(panel, 1 - OPACITY, solid, OPACITY, 0), mask, panel)
        _draw_outline(panel, mask, colour, 2)
    return panel


def _panel_mask(row: dict[str, Any], window: Window) -> np.ndarray:
    cut = _cut(np.asarray(rle_masks.decode(row["segmentation"])), window, fill=0)
    soft = cv2.resize(cut * np.uint8(255), (PANEL, PANEL), interpolation=cv2.INTER_LINEAR)
    return np.asarray(soft > 127).astype(np.uint8)


def _cut(image: np.ndarray, window: Window, *, fill: int) -> np.ndarray:
    """Cut out a window and fill the part beyond the image."""
    x1, y1, x2, y2 = window
    cut = np.full((y2 - y1, x2 - x1, *image.shape[2:]), fill, np.uint8)
    left, top = max(x1, 0), max(y1, 0)
    right, bottom = min(x2, image.shape[1]), min(y2, image.shape[0])
    cut[top - y1 : bottom - y1, left - x1 : right - x1] = image[top:bottom, left:right]
    return cut


def _draw_outline(
    panel: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], line: int
) -> None:
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if colour == OTHER_COLOUR:  # visible on bright backgrounds too
        cv2.drawContours(panel, contours, -1, INK, line + 2, cv2.LINE_AA)
    cv2.drawContours(panel, contours, -1, colour, line, cv2.LINE_AA)
