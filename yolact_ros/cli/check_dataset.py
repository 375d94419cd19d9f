"""`yolact check-dataset`: find errors in annotations and images, and draw them on sheets."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.cli.settings import FILE, FOLDER, JSON, documented
from yolact_ros.cli.table import format_table
from yolact_ros.errors import DatasetError
from yolact_ros.files import write_json

if TYPE_CHECKING:
    from yolact_ros.datasets.check import SplitReport
    from yolact_ros.datasets.findings import Findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments.

    Example:
        data/parts/train.json --images data/parts/train -o out/check

    Options:
        annotations: annotations in COCO or YouTube-VIS format.
        --images: folder of the annotated images.
        --against: another split and its images, to check and to compare; can be repeated.
        --output: write contact sheets (PNG) to this folder.
        --json: write all findings to this file.
    """
    parser.description = f"{parser.description} The exit status is 1 if there are errors."
    add = documented(parser, add_arguments)
    add("annotations", **JSON)
    add("--images", **FOLDER, required=True)
    add("--against", nargs=2, type=Path, action="append", default=[], metavar=("JSON", "FOLDER"))
    add("-o", "--output", **FOLDER)
    add("--json", **FILE)


def run(arguments: argparse.Namespace) -> int:
    """Check the splits and print the findings; return 1 if there are errors."""
    from yolact_ros.datasets.check import check_split, check_unlisted, compare_splits
    from yolact_ros.datasets.findings import SEVERITIES, format_findings
    from yolact_ros.runtime.images.files import unique_names

    splits = [(arguments.annotations, arguments.images), *arguments.against]
    paths = [path for path, _ in splits]
    labels = [
        name.removesuffix(".json") or str(p)
        for name, p in zip(unique_names(paths), paths, strict=True)
    ]
    reports = [check_split(*split) for split in splits]
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
    errors, warnings, notes = (
        sum(findings.count(severity) for findings in sections.values()) for severity in SEVERITIES
    )
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
    rows = [["class", *labels], ["", *["instances, images"] * len(labels)]]
    for name in names:
        cells = (
            f"{report.instances[name]}{report.images_with[name]:>8}"
            if name in report.instances
            else "-"
            for report in reports
        )
        rows.append([name, *cells])
    return format_table(rows)


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
