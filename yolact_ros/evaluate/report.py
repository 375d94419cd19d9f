"""Write a report folder with the accuracy of a model and its mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.datasets.coco import CocoDataset
from yolact_ros.evaluate.charts import draw_precision_recall, save_figure
from yolact_ros.evaluate.coco_map import Evaluation
from yolact_ros.evaluate.coco_tables import SUMMARY
from yolact_ros.evaluate.confusion import count_confusions, draw_confusion
from yolact_ros.evaluate.gallery import draw_gallery
from yolact_ros.evaluate.mistakes import (
    INVENTED,
    KINDS,
    MATCH_IOU,
    MISSED,
    POOR_MASK,
    WRONG_CLASS,
    MatchedImage,
    Mistake,
    find_mistakes,
    match_tables,
    worst,
)
from yolact_ros.files import write_file, write_json

# Names of COCOeval's numbers in papers.
TITLES = (
    *("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"),
    *("AR1", "AR10", "AR100", "AR small", "AR medium", "AR large"),
)
SHOWN = 12  # mistakes per kind
MEANING = {
    MISSED: "instances that no detection matches, largest first",
    INVENTED: "detections that match no instance, highest score first",
    WRONG_CLASS: "detections that match an instance of another class, highest score first",
    POOR_MASK: "masks of the right class with an IoU below 0.75, lowest first",
}


def write_report(
    folder: Path,
    evaluation: Evaluation,
    dataset: CocoDataset,
    *,
    content: Mapping[str, Any],
    score_threshold: float,
) -> dict[str, Any]:
    """Write `summary.json`, `summary.md`, and the images that they name.

    Args:
        folder: output folder; created if absent.
        evaluation: detections and results of COCOeval.
        dataset: data set of the evaluation.
        content: numbers of the evaluation, which become part of the summary.
        score_threshold: minimum class score of detections in the confusion matrix and among the
            mistakes.

    Returns:
        Content of `summary.json`.

    Raises:
        BackendError: matplotlib is not installed.
        DatasetError: a file cannot be written, or an image cannot be read.
    """
    tables, model = evaluation.tables, content["model"]["name"]
    names = [dataset.classes[c] for c in tables.class_ids]
    images = match_tables(tables, score_threshold=score_threshold)
    mistakes = [mistake for image in images for mistake in find_mistakes(image)]
    figure = draw_precision_recall(
        {"mask": evaluation.mask.precision, "box": evaluation.box.precision},
        names,
        title=f"{model}, {len(images)} images",
    )
    save_figure(figure, folder / "precision_recall.png")
    counts = _confusions(images, tables.class_ids, len(dataset.classes))
    figure = draw_confusion(
        counts, names, title=f"{model}, scores >= {score_threshold:g}, mask IoU >= {MATCH_IOU}"
    )
    save_figure(figure, folder / "confusion.png")
    numbers = Counter(mistake.kind for mistake in mistakes)
    summary = {
        **content,
        "shown": {
            "score_threshold": score_threshold,
            "mask_iou": MATCH_IOU,
            "instances": sum(len(image.truth) for image in images),
            "detections": sum(len(image.found) for image in images),
            "right": int(np.trace(counts)),
            "mistakes": {kind: numbers[kind] for kind in KINDS},
        },
    }
    galleries = _write_galleries(folder, mistakes, dataset)
    write_json(folder / "summary.json", summary)
    write_file(folder / "summary.md", format_summary(summary, galleries=galleries))
    return summary


def format_summary(summary: Mapping[str, Any], *, galleries: Sequence[str] = ()) -> str:
    """Format the summary as Markdown.

    Args:
        summary: content of `summary.json`.
        galleries: kinds of mistakes with a picture.
    """
    lines = [f"# {summary['model']['name']}", ""]
    lines += [f"{summary['images']} images; AP and AR in percent, by COCOeval.", ""]
    rows = [[kind, *(_percent(summary[kind][key]) for key in SUMMARY)] for kind in ("box", "mask")]
    lines += _table(["", *TITLES], rows)
    lines += ["", "![precision and recall](precision_recall.png)", "", "## Time", ""]
    times = {**summary["milliseconds"], "sum": sum(summary["milliseconds"].values())}
    titles = [f"{stage}, ms" for stage in times]
    lines += _table(titles, [[f"{value:.1f}" for value in times.values()]])
    machine = ", ".join(f"{key} {value}" for key, value in summary["machine"].items())
    lines += ["", f"Mean per image, on {machine}.", "", "## Classes", ""]
    columns = {
        "box AP": "box_ap", "box AP50": "box_ap50", "mask AP": "mask_ap", "mask AP50": "mask_ap50",
    }  # fmt: skip
    rows = [
        [name, str(row["instances"]), *(_percent(row[key]) for key in columns.values())]
        for name, row in summary["classes"].items()
    ]
    lines += _table(["class", "instances", *columns], rows)
    shown = summary["shown"]
    lines += [
        "",
        "## Mistakes",
        "",
        f"Detections with a class score of at least {shown['score_threshold']:g}: "
        f"{shown['detections']} detections, {shown['instances']} instances, {shown['right']} "
        f"matched with the right class (mask IoU at least {shown['mask_iou']:g}).",
        "",
        "![confusion matrix](confusion.png)",
    ]
    for kind in KINDS:
        lines += ["", f"### {kind.replace('_', ' ').capitalize()}: {shown['mistakes'][kind]}"]
        lines += ["", f"{MEANING[kind].capitalize()}."]
        lines += ["", f"![{kind.replace('_', ' ')}]({kind}.png)"] if kind in galleries else []
    return "\n".join(lines) + "\n"


def _confusions(
    images: Sequence[MatchedImage], class_ids: Sequence[int], num_classes: int
) -> np.ndarray:
    """Sum the counts of all images, for the annotated classes and the background."""
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image in images:
        counts += count_confusions(
            image.true_classes, image.found_classes, matches=image.matches, num_classes=num_classes
        )
    kept = [*class_ids, num_classes]
    return counts[np.ix_(kept, kept)]


def _write_galleries(folder: Path, mistakes: Sequence[Mistake], dataset: CocoDataset) -> list[str]:
    """Draw the worst mistakes; return the kinds that have any."""
    index = {image_id: number for number, image_id in enumerate(dataset.image_ids)}
    drawn = []
    for kind in KINDS:
        path = folder / f"{kind}.png"
        shown = worst(mistakes, kind, count=SHOWN)
        if not shown:
            path.unlink(missing_ok=True)  # of an earlier report
            continue
        cases = []
        for mistake in shown:
            place = index[mistake.image.image_id]
            cases.append((dataset.read_image(place), mistake, dataset.image_path(place).name))
        total = sum(mistake.kind == kind for mistake in mistakes)
        title = f"{MEANING[kind]}: {len(shown)} of {total}"
        save_figure(draw_gallery(cases, dataset.classes, title=title), path)
        drawn.append(kind)
    return drawn


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
