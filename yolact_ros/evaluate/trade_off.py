"""A picture of AP against milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolact_ros.evaluate.charts import finish, new_figure, save_figure
from yolact_ros.evaluate.video import VideoRow

MARKERS = "os^Dv<>P"


def draw_trade_off(rows: Sequence[VideoRow], path: Path, *, title: str) -> None:
    """Draw a line per warp and `propagated_frames` with a point per keyframe interval.

    Lines of one warp have its colour, those of one `propagated_frames` its mark.

    Args:
        rows: as `evaluate_video` gives them.
        path: the PNG to write.
        title: of the picture.

    Raises:
        DatasetError: the picture cannot be written.
    """
    figure = new_figure(7, 4.5)
    axes = figure.add_subplot()
    warps = list(dict.fromkeys(row.warp for row in rows if row.interval > 1))
    steps = sorted({row.propagated_frames for row in rows})
    for warp, moved in dict.fromkeys((row.warp, row.propagated_frames) for row in rows):
        series = [
            row
            for row in rows
            if (row.warp, row.propagated_frames) == (warp, moved) and row.mask_ap is not None
        ]
        milliseconds = [row.mean_ms for row in series]
        ap = [100 * (row.mask_ap or 0.0) for row in series]
        label = f"warp {warp}, moved {moved}" if moved else f"warp {warp}"
        colour = f"C{warps.index(warp) % 10}" if warp in warps else "black"
        marker = MARKERS[steps.index(moved) % len(MARKERS)]
        axes.plot(milliseconds, ap, color=colour, marker=marker, linewidth=1, label=label)
        for row, x, y in zip(series, milliseconds, ap, strict=True):
            axes.annotate(
                str(row.interval), (x, y), xytext=(4, 5), textcoords="offset points", fontsize=8
            )
    axes.set(
        xlabel="mean milliseconds of a frame",
        ylabel="mask AP, per cent, on all frames",
        title=f"{title}: AP against time; numbers are keyframe intervals",
    )
    finish(axes)
    save_figure(figure, path)
