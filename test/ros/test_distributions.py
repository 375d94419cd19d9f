"""The package uses only rclpy names and signatures that each distribution has.

`test/support/record_rclpy.py` made the record from the distributions' own sources.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted((REPOSITORY / "yolact_ros" / "ros").rglob("*.py"))
RECORD = json.loads((REPOSITORY / "test" / "data" / "rclpy_api.json").read_text())

# Methods of Node that are looked for with `hasattr` first.
OPTIONAL = {"add_post_set_parameters_callback"}
METHODS = ("create_subscription", "create_publisher", "create_service", "create_timer")


def imports(tree: ast.AST) -> Iterator[tuple[str, list[str], bool]]:
    """Return module, names, and whether another import replaces it where it is missing."""
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.Try)
        for part in (block.body, *(handler.body for handler in block.handlers))
        for node in part
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rclpy":
            yield str(node.module), [alias.name for alias in node.names], id(node) in guarded


def missing(api: dict, module: str, names: list[str]) -> list[str]:
    return [name for name in names if name not in api.get(module, {})]


def methods_of(module: dict, name: str) -> dict[str, list[str]]:
    """Return the methods of a class and its bases in the same module; Lyrical has a BaseNode."""
    found = dict(module.get(name) or {})
    for base in found.pop("", []):
        found = methods_of(module, base) | found
    return found


@pytest.mark.parametrize("distro", sorted(RECORD))
def test_every_import_exists(distro):
    api, alternatives = RECORD[distro], {}
    for path in SOURCES:
        for module, names, guarded in imports(ast.parse(path.read_text())):
            gone = missing(api, module, names)
            if guarded:
                alternatives.setdefault(path, []).append(gone)
            else:
                assert not gone, f"{path}: rclpy of {distro} has no {gone} in {module}"
    assert alternatives
    for path, gone in alternatives.items():
        assert [] in gone, f"{path}: of each pair of imports one has to fit {distro}: {gone}"


@pytest.mark.parametrize("distro", sorted(RECORD))
def test_every_call_of_a_node_passes_known_arguments(distro):
    node_api, seen = methods_of(RECORD[distro]["rclpy.node"], "Node"), set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            method = node.func.attr
            if method in METHODS:
                seen.add(method)
                given = {keyword.arg for keyword in node.keywords}
                assert given <= set(node_api[method]), f"{path}:{node.lineno} on {distro}"
            elif method.startswith("add_") and method.endswith("_parameters_callback"):
                known = method in node_api or method in OPTIONAL
                assert known, f"{path}:{node.lineno}: {method} on {distro}"
    assert {"create_subscription", "create_publisher"} <= seen


def test_the_record_distinguishes_the_distributions():
    """The record contains the differences that the package has to bridge."""
    assert "rclpy.event_handler" not in RECORD["humble"]
    assert "add_post_set_parameters_callback" not in RECORD["humble"]["rclpy.node"]["Node"]
    for distro in ("jazzy", "kilted", "lyrical"):
        assert "rclpy.event_handler" in RECORD[distro]
        node_api = methods_of(RECORD[distro]["rclpy.node"], "Node")
        assert "add_post_set_parameters_callback" in node_api
