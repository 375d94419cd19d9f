"""Open a model and segment images: the entry point of the library."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from yolact_ros.config import BackendConfig, KeyframeConfig, PostprocessConfig, TrackerConfig
from yolact_ros.runtime.backends import Backend
from yolact_ros.runtime.backends.open import open_backend
from yolact_ros.runtime.bundle import ModelDescription
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.frame import finish_detections
from yolact_ros.runtime.network import Network, check_postprocess
from yolact_ros.runtime.preprocess import prepare_image
from yolact_ros.runtime.shipped import find_model
from yolact_ros.runtime.stream import Stream


class Segmenter:
    """Segments single images and opens streams; must be used by one thread at a time.

    Example::

        segmenter = Segmenter.open("tabletop")
        for instance in segmenter.segment(image):
            print(instance.class_name, instance.score, instance.box)

    Attributes:
        description: the model.
        network: runs the model's graphs.
        postprocess: default thresholds and limits of `segment` and `stream`.
    """

    def __init__(
        self,
        backend: Backend,
        description: ModelDescription,
        postprocess: PostprocessConfig = PostprocessConfig(),  # noqa: B008 - frozen
    ) -> None:
        """Wrap a backend, which `close` frees.

        Raises:
            ConfigError: `postprocess` differs from a setting that is fixed in the model's graph.
        """
        self.network = Network(backend, description)
        self.description = description
        check_postprocess(postprocess, description)
        self.postprocess = postprocess

    @property
    def backend_name(self) -> str:
        """Return the name of the library that runs the model, e.g. `OnnxRuntime`."""
        return type(self.network.backend).__name__.removesuffix("Backend")

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        backend: BackendConfig = BackendConfig(),  # noqa: B008 - frozen
        postprocess: PostprocessConfig = PostprocessConfig(),  # noqa: B008 - frozen
        report: Callable[[str], bool] | None = None,
    ) -> Segmenter:
        """Open a model.

        Args:
            model: name of a shipped model, bundle folder, or checkpoint file.
            backend: the library that runs it, and its settings.
            postprocess: thresholds and limits.
            report: see `open_backend`.

        Raises:
            BundleError: the model does not exist, or the bundle is incomplete or altered.
            WeightsError: the checkpoint is invalid.
            BackendError: the backend's library is absent or cannot run the model.
            ConfigError: the model does not support these settings.
        """
        opened, description = open_backend(find_model(model), backend, report)
        try:
            return cls(opened, description, postprocess)
        except BaseException:
            opened.close()
            raise

    def stream(
        self,
        keyframes: KeyframeConfig = KeyframeConfig(),  # noqa: B008 - frozen
        *,
        tracker: TrackerConfig = TrackerConfig(),  # noqa: B008 - frozen
        postprocess: PostprocessConfig | None = None,
    ) -> Stream:
        """Open the stream of one camera or video.

        Args:
            keyframes: when the full network runs, and what other images reuse.
            tracker: how objects keep their ids; `TrackerConfig(tracking=False)` for none.
            postprocess: thresholds and limits; None for the segmenter's.

        Raises:
            ConfigError: the model does not support these settings.
        """
        return Stream(self.network, keyframes, tracker, postprocess or self.postprocess)

    def segment(
        self, image: np.ndarray, *, postprocess: PostprocessConfig | None = None
    ) -> Detections:
        """Segment a single image with the full network.

        Args:
            image: (H, W, 3) uint8 BGR; any strides.
            postprocess: thresholds and limits; None for the segmenter's.

        Raises:
            ValueError: the image has the wrong shape or type.
            ConfigError: the model does not support these settings.
            BackendError: the backend fails.
        """
        config = postprocess or self.postprocess
        check_postprocess(config, self.description)
        started = time.perf_counter()
        tensor, placement = prepare_image(image, self.description.model)
        prepared = time.perf_counter()
        (run,) = self.network.submit(self.network.whole_graph, [{"image": tensor}])
        inference = self.network.interpret(run.fetch(), config, seconds=run.seconds)
        return finish_detections(
            inference,
            placement,
            config,
            classes=self.description.model.classes,
            started=started,
            prepared=prepared,
        )

    def warm_up(self, keyframes: KeyframeConfig | None = None) -> None:
        """Run every graph once, so that the first image takes no longer than later ones.

        Args:
            keyframes: configuration of the streams that will follow; None if there will be none.

        Raises:
            ConfigError: the model does not support the warp of `keyframes`.
        """
        model = self.description.model
        image = np.zeros((*model.input_size, 3), np.uint8)
        config = self.postprocess
        if not self.network.form.nms_inside:  # the best of each class counts as a detection
            config = replace(config, nms="fast", score_threshold=0.0, top_k=1, all_classes=False)
        if keyframes is None:
            self.segment(image, postprocess=config)
            return
        stream = self.stream(
            replace(keyframes, propagated_frames=0),
            tracker=TrackerConfig(tracking=False),
            postprocess=config,
        )
        for _ in range(2):  # the second is not a keyframe, unless every image is one
            stream.segment(image)

    def close(self) -> None:
        """Free the backend."""
        self.network.backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
