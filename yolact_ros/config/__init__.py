"""Configuration of networks and of inference, as frozen dataclasses.

A default stands once, on its field, with `doc` and `range` or `choices` in the field's metadata;
command-line help, ROS parameter descriptors and the tables in the documentation come from there.
"""

from yolact_ros.config.fields import Checked, setting
from yolact_ros.config.mapping import override, to_mapping
from yolact_ros.config.model import (
    LETTERBOX_FILL_BGR,
    STRIDES,
    BackboneConfig,
    FlowConfig,
    ModelConfig,
    model_from_plain,
)
from yolact_ros.config.runtime import (
    DEFAULT_MODEL,
    MAX_AUTO_GAP_S,
    PROPAGATE_AUTO,
    REFERENCE_POSTPROCESS,
    SHIPPED_MODELS,
    WARPS,
    BackendConfig,
    KeyframeConfig,
    PostprocessConfig,
    TrackerConfig,
)

# What programs that use the library may name; the rest is for this package.
__all__ = ["BackendConfig", "KeyframeConfig", "ModelConfig", "PostprocessConfig", "TrackerConfig"]
