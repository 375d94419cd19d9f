"""Hold the results of `yolact check-dataset` for one annotation file and its images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from yolact_ros.datasets.checks.duplicates import ImageHash
from yolact_ros.datasets.findings import Findings


@dataclass
class SplitReport:
    """Holds what was found in one annotation file and its images.

    Attributes:
        annotations: path of the annotation file.
        folder: image folder.
        images: number of listed images.
        listed: their file names.
        instances: number of usable instances by class name, without crowds; may be 0.
        images_with: number of images that show each class.
        empty_images: number of images without instances.
        findings: everything that was found.
        files: names of the readable images, in the order of `hashes`.
        hashes: hashes of these images.
    """

    annotations: Path
    folder: Path
    images: int = 0
    listed: set[str] = field(default_factory=set)
    instances: Counter[str] = field(default_factory=Counter)
    images_with: Counter[str] = field(default_factory=Counter)
    empty_images: int = 0
    findings: Findings = field(default_factory=Findings)
    files: list[str] = field(default_factory=list)
    hashes: list[ImageHash] = field(default_factory=list)
