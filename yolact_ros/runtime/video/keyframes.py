"""Decide which images of a stream are keyframes, on which the full network runs."""

from __future__ import annotations

from collections.abc import Callable

from yolact_ros.config import KeyframeConfig

# Reasons for a keyframe.
FIRST = "first"  # no features yet
REQUESTED = "requested"  # requested by the user
SIZE_CHANGE = "size_change"  # the image size has changed
TIME_JUMP = "time_jump"  # the stamps go back or have a gap
FEATURE_AGE = "feature_age"  # the features are too old
INTERVAL = "interval"  # the keyframe interval has passed
SCENE_CHANGE = "scene_change"  # too much has changed since the keyframe


class KeyframePolicy:
    """Decides on the images of one stream, in order.

    Every image passed to `decide` counts as processed; if processing fails, call `reset`.

    Attributes:
        config: may be replaced between two images.
        keyframe_stamp: stamp of the last keyframe in seconds; None if there is none.
    """

    def __init__(self, config: KeyframeConfig) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next image is a keyframe."""
        self.keyframe_stamp: float | None = None
        self._previous_stamp: float | None = None
        self._image_size: tuple[int, int] | None = None
        self._since_keyframe = 0

    def decide(
        self,
        stamp: float | None,
        image_size: tuple[int, int],
        *,
        change: Callable[[], float] | None = None,
        requested: bool = False,
        reusable: bool = True,
    ) -> str | None:
        """Decide on the next image.

        Args:
            stamp: capture time in seconds on any clock; None disables the
                time-based rules.
            image_size: (height, width) in pixels.
            change: returns the change since the keyframe as a fraction, see
                `KeyframeConfig.change_threshold`; called only if no other rule applies.
            requested: whether a keyframe was requested.
            reusable: whether anything of earlier images can be reused; if not, this image is a
                keyframe at any interval.

        Returns:
            Why the image is a keyframe, one of the constants above; None if it is not.
        """
        longest = self.config.max_feature_age
        reason = None
        if self._image_size is None:
            reason = FIRST
        elif requested:
            reason = REQUESTED
        elif image_size != self._image_size:
            reason = SIZE_CHANGE
        # Written so that a NaN stamp results in a keyframe.
        elif not _within(self._previous_stamp, stamp, longest):
            reason = TIME_JUMP
        elif not _within(self.keyframe_stamp, stamp, longest):
            reason = FEATURE_AGE
        elif not reusable or self._since_keyframe + 1 >= self.config.keyframe_interval:
            reason = INTERVAL
        elif change is not None and not change() <= self.config.change_threshold:
            reason = SCENE_CHANGE
        if reason is None:
            self._since_keyframe += 1
        else:
            self.keyframe_stamp = stamp
            self._since_keyframe = 0
        self._previous_stamp = stamp
        self._image_size = image_size
        return reason


def _within(earlier: float | None, later: float | None, longest: float) -> bool:
    """Return whether `later` is 0 to `longest` seconds after `earlier`; true if one is unknown."""
    return earlier is None or later is None or 0 <= later - earlier <= longest
