"""`yolact check-dataset`: find errors in annotations and images, and draw them."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.errors import DatasetError
from yolact_ros.files import write_json

if TYPE_CHECKING:
    from yolact_ros.datasets.checks.report import SplitReport
    from yolact_ros.datasets.findings import Findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = f"{parser.description} The exit status is 1 if there are errors."
    parser.add_argument(
        "annotations", type=Path, metavar="JSON", help="annotations in COCO or YouTube-VIS format"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="JSON",
        help="another split to check and to compare with the others; can be repeated",
    )
    parser.add_argument(
        "--against-images",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="images of each --against, in the same order (default: the folder of --images)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write contact sheets (PNG) to this folder",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all findings to this file"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the splits and print the findings; return 1 if there are errors."""
    from yolact_ros.datasets.checks.split import check_split, check_unlisted, compare_splits
    from yolact_ros.datasets.findings import ERROR, NOTE, WARNING, format_findings
    from yolact_ros.runtime.images.files import unique_names

    folders = arguments.against_images or [arguments.images] * len(arguments.against)
    if len(folders) != len(arguments.against):
        raise DatasetError(
            f"There are {len(arguments.against)} --against and {len(folders)} --against-images; "
            "give one folder for each annotation file, or none."
        )
    paths = [arguments.annotations, *arguments.against]
    labels = [
        name.removesuffix(".json") or str(p)
        for name, p in zip(unique_names(paths), paths, strict=True)
    ]
    reports = [
        check_split(*split) for split in zip(paths, [arguments.images, *folders], strict=True)
    ]
    check_unlisted(reports)
    sections: dict[str, Findings] = {}
    for label, report in zip(labels, reports, strict=True):
        sections[label] = report.findings
        print(format_split(label, report))
    for i, j in itertools.combinations(range(len(reports)), 2):
        title = f"{labels[i]} and {labels[j]}"
        sections[title] = compare_splits(reports[i], reports[j])
        print(f"{title}\n{format_findings(sections[title])}\n")
    print(format_classes(labels, reports))
    errors = sum(findings.count(ERROR) for findings in sections.values())
    warnings = sum(findings.count(WARNING) for findings in sections.values())
    notes = sum(findings.count(NOTE) for findings in sections.values())
    print(f"\n{errors} errors, {warnings} warnings, {notes} notes")
    if arguments.json:
        classes = {
            label: {name: [count, report.images_with[name]] for name, count in counts.items()}
            for label, report in zip(labels, reports, strict=True)
            for counts in [report.instances]
        }
        findings = {title: found.to_mapping() for title, found in sections.items()}
        write_json(arguments.json, {"instances_and_images": classes, "findings": findings})
    if arguments.output:
        write_sheets(arguments.output, labels, reports)
    return 1 if errors else 0


def format_split(label: str, report: SplitReport) -> str:
    """Format the counts and the findings of a split."""
    counts = (
        f"{report.images} images, {sum(report.instances.values())} usable instances, "
        f"{len(report.instances)} classes, {report.empty_images} images without instances"
    )
    from yolact_ros.datasets.findings import format_findings

    return f"{label}: {counts}\n{format_findings(report.findings)}\n"


def format_classes(labels: list[str], reports: list[SplitReport]) -> str:
    """Format a table of the instances and images of each class, most frequent first."""
    names = list(dict.fromkeys(name for report in reports for name in report.instances))
    names.sort(key=lambda name: -reports[0].instances[name])
    width = max([len("class"), *map(len, names)])
    columns = [max(18, len(label) + 2) for label in labels]
    head = "".join(f"{label:>{c}}" for label, c in zip(labels, columns, strict=True))
    units = "".join(f"{'instances, images':>{c}}" for c in columns)
    lines = [f"{'class':<{width}}{head}", f"{'':<{width}}{units}"]
    for name in names:
        cells = "".join(
            f"{report.instances[name]:>{c - 8}}{report.images_with[name]:>8}"
            if name in report.instances
            else f"{'-':>{c}}"
            for c, report in zip(columns, reports, strict=True)
        )
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(lines)


def write_sheets(folder: Path, labels: list[str], reports: list[SplitReport]) -> None:
    """Draw a contact sheet of each split that can be used for training."""
    from yolact_ros.datasets.coco import CocoDataset
    from yolact_ros.evaluate.contact_sheet import draw_contact_sheet
    from yolact_ros.runtime.images.files import write_picture

    for label, report in zip(labels, reports, strict=True):
        try:
            sheet = draw_contact_sheet(CocoDataset(report.annotations, report.folder))
        except DatasetError as error:
            print(f"No contact sheet of {label}: {error}")
            continue
        path = folder / f"contact_sheet_{label.replace('/', '_')}.png"
        write_picture(path, sheet)
        print(path)
