"""What `yolact check-dataset` keeps of one annotation file and its images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from yolact_ros.datasets.checks.duplicates import ImageHash
from yolact_ros.datasets.findings import Findings


@dataclass
class SplitReport:
    """What was found in one annotation file and its images.

    Attributes:
        annotations: the file.
        folder: of the images.
        images: how many it lists.
        listed: their file names.
        instances: usable ones by class name, crowds left out; a class without any has 0.
        images_with: how many images show each class.
        empty_images: how many images have no instance.
        findings: the account.
        files: names of the images that could be read, in the order of `hashes`.
        hashes: of these images.
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
