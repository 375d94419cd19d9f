"""Configure networks and inference with frozen dataclasses.

Each default is defined once, on its field, with `doc` and `range` or `choices` in the field's
metadata; command-line help, ROS parameter descriptors and documentation derive from it.
"""

from yolact_ros.config.fields import (
    Checked,
    describe,
    docstring_entries,
    override,
    setting,
    to_mapping,
    with_notes,
)
from yolact_ros.config.model import (
    LETTERBOX_FILL_BGR,
    STRIDES,
    BackboneConfig,
    FlowConfig,
    ModelConfig,
    model_from_mapping,
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

# Public names for programs that use the library; the rest is internal to this package.
__all__ = ["BackendConfig", "KeyframeConfig", "ModelConfig", "PostprocessConfig", "TrackerConfig"]
