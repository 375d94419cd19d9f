"""Real-time instance segmentation for ROS 2: YOLACT, YOLACT++ and YolactEdge.

    from yolact_ros import Segmenter

    segmenter = Segmenter.open("tabletop")
    for instance in segmenter.segment(image):
        print(instance.class_name, instance.score, instance.box)

Importing the package loads neither torch nor rclpy; names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolact_ros.runtime.detections import Detections
    from yolact_ros.runtime.segmenter import Segmenter
    from yolact_ros.runtime.stream import Stream

__version__ = "0.1.0"
__all__ = ["Detections", "Segmenter", "Stream", "__version__"]

# ROS generates yolact_ros.msg and yolact_ros.srv elsewhere; with the repository as the current
# folder, both parts form one package.
__path__ = pkgutil.extend_path(__path__, __name__)

# ONNX Runtime 1.29 and later sends telemetry unless this is set before it is loaded; a robot
# sends none. A value that the user has set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "Detections": "yolact_ros.runtime.detections",
    "Segmenter": "yolact_ros.runtime.segmenter",
    "Stream": "yolact_ros.runtime.stream",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'yolact_ros' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *_MODULES})
