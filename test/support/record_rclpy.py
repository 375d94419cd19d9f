#!/usr/bin/env python3
"""Record the names and signatures of rclpy, so that tests check the package on every distribution.

    python3 test/support/record_rclpy.py humble RCLPY_FOLDER  # a source tree or an installation

adds one distribution to test/data/rclpy_api.json: for each module its names; a class maps its
methods, a function its parameters.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parent.parent / "data" / "rclpy_api.json"


def main() -> None:
    """Record one distribution."""
    distro, folder = sys.argv[1], Path(sys.argv[2])
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record[distro] = {
        name_of(path.relative_to(folder)): names_of(ast.parse(path.read_text()))
        for path in sorted(folder.rglob("*.py"))
        if not {"action", "experimental"} & set(path.parts)
    }
    RECORD.write_text(json.dumps(record, indent=0, sort_keys=True) + "\n")


def name_of(path: Path) -> str:
    """Return the module of a file: `rclpy.lifecycle` for `lifecycle/__init__.py`."""
    parts = [part for part in path.with_suffix("").parts if part != "__init__"]
    return ".".join(["rclpy", *parts])


def names_of(tree: ast.Module) -> dict[str, Any]:
    """Return the public names of a module."""
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node in tree.body:
            names |= {(alias.asname or alias.name).split(".")[0]: None for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = {
                item.name: parameters_of(item)
                for item in node.body
                if isinstance(item, ast.FunctionDef)
                and (item.name == "__init__" or not item.name.startswith("_"))
            } | {"": [ast.unparse(base).split("[")[0] for base in node.bases]}
        elif isinstance(node, ast.FunctionDef):
            names[node.name] = parameters_of(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {t.id: None for t in targets if isinstance(t, ast.Name)}
    return {name: value for name, value in names.items() if not name.startswith("_")}


def parameters_of(function: ast.FunctionDef) -> list[str]:
    """Return the names of a function's parameters; `*` and `**` accept any."""
    given = function.args
    names = [a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    names += ["*"] if given.vararg else []
    return [n for n in names if n not in ("self", "cls")] + (["**"] if given.kwarg else [])


if __name__ == "__main__":
    main()
