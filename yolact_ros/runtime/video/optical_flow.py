"""Measure motion and change between two images of a stream, by dense optical flow (DIS)."""

from __future__ import annotations

import cv2
import numpy as np

from yolact_ros.config import ModelConfig

# Size of the grey images as a fraction of the network's input.
GREY_SCALE = 0.25

# DIS works on patches of 8 pixels, and OpenCV requires more than one of them.
MIN_GREY_SIDE = 16

STRIDE = 16  # of x4, for whose cells the flow is computed


def grey_image(tensor: np.ndarray) -> np.ndarray:
    """Create the small grey image on which changes are measured.

    Args:
        tensor: (1, H, W, 3) uint8 BGR, the network's input.

    Returns:
        (h, w) uint8.
    """
    height, width = tensor.shape[1:3]
    size = [max(MIN_GREY_SIDE, round(side * GREY_SCALE)) for side in (width, height)]
    # Downscale first: a quarter of the size leaves a sixteenth of the pixels to convert.
    small = cv2.resize(tensor[0], size, interpolation=cv2.INTER_AREA)
    grey: np.ndarray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return grey


def grey_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the mean difference of two grey images, 0 to 1, ignoring overall brightness.

    Cameras change their exposure constantly, which hardly affects the network.
    """
    difference = first.astype(np.float32) - second
    return float(np.abs(difference - difference.mean()).mean()) / 255


class OpticalFlow:
    """Computes dense inverse search flow (Kroeger et al. 2016) with OpenCV; reuses its buffers."""

    def __init__(self, *, finest_scale: int = 1) -> None:
        """Create the search.

        Args:
            finest_scale: how often the images are halved before the last search. 1 takes 1.5 ms
                at 550 pixels with an error of 0.7 input pixels, a twentieth of a cell of x4; the
                preset's 2 takes 0.4 ms with an error of 1.6.
        """
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._search.setFinestScale(finest_scale)

    def between(self, current: np.ndarray, keyframe: np.ndarray) -> np.ndarray:
        """Find the position in the keyframe of every pixel of the current image.

        Args:
            current: (h, w) uint8 grey.
            keyframe: the same.

        Returns:
            (h, w, 2) float32 x and y in pixels of these images: pixel (x, y) of `current` is
            `(x, y) + flow[y, x]` of `keyframe`.
        """
        # An array instead of None would be used as an initial guess.
        flow: np.ndarray = self._search.calc(current, keyframe, None)  # type: ignore[call-overload]
        return flow


def flow_at_cells(flow: np.ndarray, model: ModelConfig) -> np.ndarray:
    """Convert flow to the input of the graph `non_keyframe_flow`.

    Args:
        flow: (h, w, 2) in pixels of the grey image, see `OpticalFlow.between`.
        model: defines the sizes of the network's input and of x4.

    Returns:
        (1, 2, h4, w4) float32 x and y in pixels of the network's input, at the cells of x4.
    """
    rows, columns = model.feature_sizes[1]
    scale = np.array(
        [model.input_size[1] / flow.shape[1], model.input_size[0] / flow.shape[0]], np.float32
    )
    # The mean over about one cell around the cell's centre: convolutions of stride 2 with padding
    # on both sides centre cell i of stride s on pixel s * i of the input.
    width, height = (round(STRIDE / step) | 1 for step in scale)  # odd, so that it has a centre
    smooth = cv2.blur(flow, (width, height), borderType=cv2.BORDER_REPLICATE)
    x = (STRIDE * np.arange(columns, dtype=np.float32) + 0.5) / scale[0] - 0.5
    y = (STRIDE * np.arange(rows, dtype=np.float32) + 0.5) / scale[1] - 0.5
    at_cells = cv2.remap(
        smooth,
        np.broadcast_to(x, (rows, columns)).copy(),
        np.broadcast_to(y[:, None], (rows, columns)).copy(),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray((at_cells * scale).transpose(2, 0, 1)[None])


def flow_change(flow: np.ndarray, current: np.ndarray, keyframe: np.ndarray) -> float:
    """Measure the change that warping features by `flow` does not compensate.

    Args:
        flow: (h, w, 2), see `OpticalFlow.between`.
        current: (h, w) uint8 grey.
        keyframe: the same.

    Returns:
        The larger of the mean motion as a fraction of the image's sides, and the mean grey
        difference that motion does not explain, as after a cut.
    """
    height, width = current.shape
    motion = np.hypot(flow[..., 0] / width, flow[..., 1] / height)
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    moved = cv2.remap(keyframe, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return max(float(motion.mean()), grey_difference(current, moved))
