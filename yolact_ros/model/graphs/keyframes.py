"""Define the graphs for video: keyframes output features, other frames reuse them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from yolact_ros.model.feature_transform import KeyframeFeatures
from yolact_ros.model.graphs.detect import DetectGraph, normalise
from yolact_ros.model.graphs.detect_with_nms import DetectWithNmsGraph


class _VideoGraph(nn.Module):
    def __init__(self, detect: DetectGraph | DetectWithNmsGraph) -> None:
        super().__init__()
        self.detect = detect
        self.outputs = detect.outputs


class KeyframeGraph(_VideoGraph):
    """Implements the graph `keyframe`, with the outputs of `detect` and the features.

    Attributes:
        outputs: names of the outputs, in order.
    """

    def __init__(self, detect: DetectGraph | DetectWithNmsGraph) -> None:
        super().__init__(detect)
        self.outputs = (*detect.outputs, *features_of(detect))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Run on image (1, H, W, 3) uint8 BGR of the network's input size."""
        network = self.detect.network
        pyramid, features = network.keyframe_pyramid(normalise(image, network.config))
        kept = (getattr(features, name) for name in features_of(self.detect))
        return (*self.detect.finish(pyramid), *kept)


class NonKeyframeGraph(_VideoGraph):
    """Implements the graph `non_keyframe`, in which the learned flow warps the features."""

    def forward(self, image: Tensor, x4: Tensor, x5: Tensor, lateral: Tensor) -> Any:
        """Run on an image, as for `keyframe`, with the features of a keyframe."""
        network = self.detect.network
        images = normalise(image, network.config)
        features = KeyframeFeatures(x4, x5, lateral)
        return self.detect.finish(network.non_keyframe_pyramid(images, features))


class NonKeyframeFlowGraph(_VideoGraph):
    """Implements the graph `non_keyframe_flow`, in which a given flow warps the features."""

    def forward(self, image: Tensor, x4: Tensor, x5: Tensor, flow: Tensor) -> Any:
        """Run on an image, as for `keyframe`; `feature_transform.warp_by_flow` defines `flow`."""
        network = self.detect.network
        images = normalise(image, network.config)
        pyramid = network.non_keyframe_pyramid_by_flow(images, x4, x5, flow=flow)
        return self.detect.finish(pyramid)


def features_of(detect: DetectGraph | DetectWithNmsGraph) -> tuple[str, ...]:
    """Return the names of a keyframe's features; only a learned flow needs the lateral."""
    if detect.network.feature_transform is None:
        return ("x4", "x5")
    return KeyframeFeatures._fields
