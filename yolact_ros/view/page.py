"""Build a web page on which to try models on images, with Gradio."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolact_ros.config import SHIPPED_MODELS, BackendConfig, PostprocessConfig
from yolact_ros.errors import YolactError
from yolact_ros.evaluate.prototypes import draw_assembly_sheet, take_apart
from yolact_ros.runtime.images.decoding import read_bgr
from yolact_ros.runtime.images.encodings import convert_colors
from yolact_ros.runtime.output.draw import draw_detections
from yolact_ros.runtime.segmenter import Segmenter

COLUMNS = ("class", "score", "mask score", "x1", "y1", "x2", "y2", "pixels")
MAX_FILE_SIZE = "64mb"
BUTTONS: Any = ["download", "fullscreen"]  # without Gradio's, which uploads the picture
TITLE = "yolact_ros: instance segmentation"


class Workbench:
    """Opens models on first use, and segments images with them."""

    def __init__(self, backend: BackendConfig) -> None:
        self._backend = backend
        self._opened: dict[str, Segmenter] = {}
        self._lock = threading.Lock()  # the page serves every visitor in a separate thread

    def segment(
        self, picture: str | Path, model: str, score_threshold: float, mask_threshold: float
    ) -> tuple[np.ndarray, list[list[Any]]]:
        """Segment one image.

        Args:
            picture: path of the picture file.
            model: name or path of a model.
            score_threshold: see `PostprocessConfig`.
            mask_threshold: see `PostprocessConfig`.

        Returns:
            (H, W, 3) uint8 RGB overlay, and a row of `COLUMNS` for each instance.

        Raises:
            YolactError: the picture or the model is invalid.
        """
        config = PostprocessConfig(score_threshold=score_threshold, mask_threshold=mask_threshold)
        image = read_bgr(picture)
        with self._lock:
            segmenter = self._segmenter(model)
            found = segmenter.segment(image, postprocess=config)
        rows = [
            [i.class_name, round(i.score, 3), round(i.mask_score, 3), *np.rint(i.box).tolist()]
            + [int(i.crop.sum())]
            for i in found
        ]
        return _rgb(draw_detections(image, found, found.class_names)), rows

    def prototypes(self, picture: str | Path, model: str) -> np.ndarray:
        """Draw the prototypes of an image and how they add up to masks, as (H, W, 3) uint8 RGB.

        Raises:
            YolactError: the picture or the model is invalid.
        """
        image = read_bgr(picture)
        with self._lock:
            segmenter = self._segmenter(model)
            assembly = take_apart(segmenter, image)
        names = segmenter.description.model.classes
        return _rgb(draw_assembly_sheet(image, assembly, class_names=names))

    def _segmenter(self, model: str) -> Segmenter:
        if model not in self._opened:
            self._opened[model] = Segmenter.open(model, backend=self._backend)
        return self._opened[model]


def build_page(models: tuple[str, ...], backend: BackendConfig) -> Any:
    """Return the page, a `gradio.Blocks`; `models` are listed before the shipped ones."""
    import gradio

    bench = Workbench(backend)
    choices = list(dict.fromkeys((*models, *SHIPPED_MODELS)))

    def explained(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(picture: str | None, *values: Any) -> Any:
            if not picture:
                raise gradio.Error("Choose an image first.")
            try:
                return work(picture, *values)
            except YolactError as error:
                raise gradio.Error(str(error)) from error

        return run

    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(f"## {TITLE}")
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(
                    type="filepath", sources=["upload", "webcam", "clipboard"], label="picture"
                )
                model = gradio.Dropdown(choices, value=choices[0], label="model")
                defaults = PostprocessConfig()
                score = gradio.Slider(0, 1, defaults.score_threshold, label="score threshold")
                mask = gradio.Slider(0, 1, defaults.mask_threshold, label="mask threshold")
                show = gradio.Button("show prototypes")
            with gradio.Column():
                overlay = gradio.Image(label="instances", interactive=False, buttons=BUTTONS)
                table = gradio.Dataframe(headers=list(COLUMNS), label="instances")
        sheet = gradio.Image(label="prototypes", interactive=False, buttons=BUTTONS)
        inputs = [picture, model, score, mask]
        segment = explained(bench.segment)
        picture.input(segment, inputs, [overlay, table], api_name="segment")
        for control in (model, score, mask):
            control.change(segment, inputs, [overlay, table])
        show.click(explained(bench.prototypes), [picture, model], sheet, api_name="prototypes")
    return page


def _rgb(image: np.ndarray) -> np.ndarray:
    return convert_colors(image, cv2.COLOR_BGR2RGB)
