"""The exception tree.

    YolactError
    ├── ConfigError    a configuration value or key that cannot be used
    ├── WeightsError   a checkpoint that is missing, foreign or does not fit its network
    ├── DatasetError   annotations or images that cannot be read
    ├── BundleError    an exported model folder that is missing, incomplete or altered
    ├── BackendError   a runtime library that is absent or refuses a graph
    └── MessageError   a ROS message that cannot be converted

Every message says what went wrong, where, what was expected and what to do about it.
"""

from __future__ import annotations


class YolactError(Exception):
    """Base of all errors that this package raises on bad input or a bad environment."""


class ConfigError(YolactError):
    """A configuration value or key that cannot be used."""


class WeightsError(YolactError):
    """A checkpoint that is missing, foreign or does not fit its network."""


class DatasetError(YolactError):
    """Annotations or images that cannot be read."""


class BundleError(YolactError):
    """An exported model folder that is missing, incomplete or altered."""


class BackendError(YolactError):
    """A runtime library that is absent, refuses a graph or fails while running one."""


class MessageError(YolactError):
    """A ROS message that cannot be converted."""
