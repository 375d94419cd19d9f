"""package.xml, setup.cfg, CMake and the sources agree with each other."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from packaging.requirements import Requirement

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


# Where a module comes from that has another name than its package in rosdep.
KEYS = {"cv2": "python3-opencv", "simplejpeg": "python3-simplejpeg-pip", "yaml": "python3-yaml"}
# Used only where it is installed.
NO_KEY = {"cv_bridge", "foxglove_msgs", "onnx", "supervision"}


def test_every_import_of_the_node_is_a_dependency_in_package_xml():
    package = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    needed = {tag.text for tag in package if tag.tag in ("depend", "exec_depend")}
    sources = [
        *(REPOSITORY / "yolact_ros/ros").rglob("*.py"),
        *(REPOSITORY / "yolact_ros/runtime").glob("*.py"),
        *(REPOSITORY / "launch").glob("*.py"),
    ]
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for top in {name.partition(".")[0] for name in names} - NO_KEY - {"yolact_ros"}:
                if top not in sys.stdlib_module_names:
                    keys = {KEYS.get(top, top), f"python3-{top}"}
                    assert keys & needed, f"{path.name} imports {top}: not in package.xml"


def test_every_program_that_a_launch_file_starts_is_a_dependency_in_package_xml():
    package = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    needed = {tag.text for tag in package if tag.tag in ("depend", "exec_depend")}
    for path in (REPOSITORY / "launch").glob("*.py"):
        started = set(re.findall(r'package="(\w+)"', path.read_text()))
        assert started <= needed | {"yolact_ros"}, path.name


def test_the_faulty_opencv_is_excluded_on_arm_alone():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    lines = [
        Requirement(line) for line in config["options"]["install_requires"].split("\n") if line
    ]
    for machine, allowed in (("aarch64", False), ("x86_64", True)):
        (opencv,) = (
            line
            for line in lines
            if line.name == "opencv-python-headless"
            and line.marker.evaluate({"platform_machine": machine})
        )
        assert opencv.specifier.contains("5.0.0.93") == allowed
        assert opencv.specifier.contains("4.11.0.86")


def test_a_skipped_file_hides_no_other_where_launch_testing_is_installed(tmp_path):
    """The stand-in ends as launch_testing of Humble and Jazzy does at a file that is skipped."""
    stand_in = tmp_path / "installed"
    information = stand_in / "launch_testing-1.0.7.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Name: launch_testing\nVersion: 1.0.7\n")
    (information / "entry_points.txt").write_text("[pytest11]\nlaunch_testing = stand_in\n")
    (stand_in / "stand_in.py").write_text(
        "import pytest\n\ndef pytest_pycollect_makemodule(parent):\n"
        "    pytest.importorskip('missing')\n"
    )
    project = tmp_path / "project"
    project.mkdir()
    (project / "test_working.py").write_text("def test_it():\n    pass\n")

    def tests() -> str:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(project)]
        environment = os.environ | {"PYTHONPATH": str(stand_in)}
        return subprocess.run(command, capture_output=True, text=True, env=environment).stdout

    assert "passed" not in tests()
    shutil.copy(REPOSITORY / "pyproject.toml", project)
    assert "1 passed" in tests()
