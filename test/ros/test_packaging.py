"""What package.xml, setup.cfg, CMake and the sources say about each other."""

from __future__ import annotations

import configparser
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_versions_are_equal_everywhere():
    package = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    assert package.findtext("version") == config["metadata"]["version"]
    assert package.findtext("name") == config["metadata"]["name"] == "yolact_ros"
    assert package.findtext("license") == config["metadata"]["license"] == "Apache-2.0"


def test_every_message_is_generated():
    listed = re.findall(r'"(msg/\w+\.msg)"', (REPOSITORY / "CMakeLists.txt").read_text())
    assert sorted(listed) == sorted(f"msg/{path.name}" for path in REPOSITORY.glob("msg/*.msg"))


def test_every_field_and_constant_of_a_message_is_commented():
    for path in REPOSITORY.glob("msg/*.msg"):
        commented = False
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                assert "#" in line or commented, f"{path.name}: {line}"
            commented = line.startswith("#")


def test_programs_are_installed_and_may_be_run():
    listed = re.search(
        r"install\(PROGRAMS ([^)]*?)\s+DESTINATION", (REPOSITORY / "CMakeLists.txt").read_text()
    )
    for name in listed.group(1).split():
        program = REPOSITORY / name
        assert program.stat().st_mode & 0o111, f"{name} is not executable"
        assert program.read_text().startswith("#!/usr/bin/env python3\n"), name


def test_neither_torch_nor_tensorrt_is_pulled_in_by_ros():
    package = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    needed = " ".join(tag.text or "" for tag in package if tag.tag.endswith("depend"))
    assert "torch" not in needed and "tensorrt" not in needed
