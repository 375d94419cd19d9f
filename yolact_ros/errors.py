"""Define the exception tree.

    YolactError
    ├── ConfigError    an invalid configuration value or key
    ├── WeightsError   a checkpoint that is missing, foreign or does not fit its network
    ├── DatasetError   annotations or images that cannot be read
    ├── BundleError    an exported model folder that is missing, incomplete or altered
    ├── BackendError   a runtime library that is absent or rejects a graph
    └── MessageError   a ROS message that cannot be converted

Every message says what went wrong, where, what was expected and what to do about it.
"""

from __future__ import annotations


class YolactError(Exception):
    """Reports bad input or a bad environment; base class of all errors of this package."""


class ConfigError(YolactError):
    """Reports an invalid configuration value or key."""


class WeightsError(YolactError):
    """Reports a checkpoint that is missing, foreign or does not fit its network."""


class DatasetError(YolactError):
    """Reports annotations or images that cannot be read."""


class BundleError(YolactError):
    """Reports an exported model folder that is missing, incomplete or altered."""


class BackendError(YolactError):
    """Reports a runtime library that is absent, rejects a graph or fails while running one."""


class MessageError(YolactError):
    """Reports a ROS message that cannot be converted."""
