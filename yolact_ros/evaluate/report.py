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
from yolact_ros.evaluate.confusion import count_confusions, draw_confusion
from yolact_ros.evaluate.gallery import draw_gallery
from yolact_ros.evaluate.mistakes import (
    KINDS,
    MATCH_IOU,
    MatchedImage,
    Mistake,
    find_mistakes,
    match_tables,
    worst,
)
from yolact_ros.files import write_file, write_json

SHOWN = 12  # mistakes per kind


def write_report(
    folder: Path,
    evaluation: Evaluation,
    dataset: CocoDataset,
    *,
    content: Mapping[str, Any],
    score_threshold: float,
    text: str,
) -> dict[str, Any]:
    """Write `summary.json`, `summary.md`, and the images that they name.

    Args:
        folder: output folder; created if absent.
        evaluation: detections and results of COCOeval.
        dataset: data set of the evaluation.
        content: numbers of the evaluation, which become part of the summary.
        score_threshold: minimum class score of detections in the confusion matrix and among the
            mistakes.
        text: results as text, for `summary.md`.

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
    write_file(folder / "summary.md", format_summary(summary, tables=text, galleries=galleries))
    return summary


def format_summary(
    summary: Mapping[str, Any], *, tables: str, galleries: Sequence[str] = ()
) -> str:
    """Format the summary as Markdown.

    Args:
        summary: content of `summary.json`.
        tables: results as text.
        galleries: kinds of mistakes with a picture.
    """
    shown = summary["shown"]
    paragraphs = [
        f"# {summary['model']['name']}",
        f"```\n{tables}\n```",
        "![precision and recall](precision_recall.png)",
        "## Mistakes",
        f"Detections with a class score of at least {shown['score_threshold']:g}: "
        f"{shown['detections']} detections, {shown['instances']} instances, {shown['right']} "
        f"matched with the right class (mask IoU at least {shown['mask_iou']:g}).",
        "![confusion matrix](confusion.png)",
    ]
    for kind, meaning in KINDS.items():
        title = kind.replace("_", " ")
        paragraphs += [f"### {title.capitalize()}: {shown['mistakes'][kind]}"]
        paragraphs += [f"{meaning.capitalize()}."]
        paragraphs += [f"![{title}]({kind}.png)"] if kind in galleries else []
    return "\n\n".join(paragraphs) + "\n"


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
            position = index[mistake.image.image_id]
            cases.append(
                (dataset.read_image(position), mistake, dataset.image_path(position).name)
            )
        total = sum(mistake.kind == kind for mistake in mistakes)
        title = f"{KINDS[kind]}: {len(shown)} of {total}"
        save_figure(draw_gallery(cases, dataset.classes, title=title), path)
        drawn.append(kind)
    return drawn
