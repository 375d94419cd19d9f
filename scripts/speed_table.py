#!/usr/bin/env python3
"""Print the tables of docs/research/speed.md from JSON files of `yolact benchmark`.

make benchmark
python scripts/speed_table.py out/benchmark/*.json --write docs/research/speed.md
python scripts/speed_table.py out/benchmark/*.json --write docs/research/speed.md --release 0.1.0
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

START, END = "<!-- tables: scripts/speed_table.py -->", "<!-- end of tables -->"
RELEASES, END_OF_RELEASES = "<!-- releases: scripts/speed_table.py -->", "<!-- end of releases -->"
MODELS = "tabletop", "tools", "everyday"
SCENES = "20 instances", "100 instances"


def main() -> None:
    """Print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="JSON file of `yolact benchmark`"
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write the tables into this page"
    )
    parser.add_argument(
        "--release", metavar="VERSION", help="write only the row of this version; requires --write"
    )
    arguments = parser.parse_args()
    if arguments.release and not arguments.write:
        parser.error("--release requires --write")
    contents = [json.loads(path.read_text()) for path in arguments.files]
    parts = [
        comparison_table([content for content in contents if "rows" in content]),
        postprocess_table([content for content in contents if "scenes" in content]),
        "\n\n".join(sorted({machine_line(content["machine"]) for content in contents})),
    ]
    text, start, end = "\n\n".join(part for part in parts if part), START, END
    if not arguments.write:
        print(text)
        return
    page = arguments.write.read_text()
    if arguments.release:
        start, end = RELEASES, END_OF_RELEASES
        rows = page.split(start)[1].split(end)[0].split("\n")[4:]
        text = releases_table([release_row(arguments.release, contents), *rows])
    before, rest = page.split(start)
    arguments.write.write_text(f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def release_row(version: str, contents: list[dict[str, Any]]) -> str:
    """Return the medians of a version: of each model by threads, and of post-processing."""
    models: dict[str, list[str]] = {name: [] for name in MODELS}
    scenes = dict.fromkeys(SCENES, "-")
    for content in contents:
        for row in content.get("rows", ()):
            config = row["config"]
            if (config["backend"], config["precision"]) == ("onnxruntime", "f32"):
                models.get(Path(row["model"]).name, []).append(f"{row['times']['p50']:.1f}")
        for scene in set(SCENES) & set(content.get("scenes", ())):
            scenes[scene] = f"{content['scenes'][scene]['total']['p50']:.2f}"
    cells = [", ".join(times) or "-" for times in models.values()]
    return table([[version, *cells, *scenes.values(), contents[0]["machine"]["cpu"]]])


def releases_table(rows: list[str]) -> str:
    """Format the rows, of which an earlier one of the same version is dropped."""
    titles = ["version", *MODELS, *SCENES, "CPU"]
    first, *others = (row for row in rows if row)
    others = [row for row in others if row.split("|")[1] != first.split("|")[1]]
    return "\n".join([table([titles, ["---"] * len(titles)]), first, *others])


def comparison_table(contents: list[dict[str, Any]]) -> str:
    """Return one row per model, library and precision, with milliseconds by number of threads."""
    counts = sorted({row["config"]["threads"] for c in contents for row in c["rows"]})
    ways: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for content in contents:
        for row in content["rows"]:
            config = row["config"]
            precision = config["precision"]
            if row["weights"] == "int8":
                precision = f"int8, rest {precision}"
            key = Path(row["model"]).name, config["backend"], config["provider"], precision
            ways.setdefault(key, {})[config["threads"]] = row
    if not ways:
        return ""
    titles = ["model", "library", "device", "precision"]
    titles += [f"{n} thread{'s' * (n > 1)}: ms, ratio" for n in counts]
    lines = [[*titles, "agreement", "mask AP"], ["---"] * (len(titles) + 2)]
    for key, rows in ways.items():
        times = [
            f"{rows[n]['times']['p50']:.1f}, {rows[n]['ratio']:.2f}" if n in rows else "-"
            for n in counts
        ]
        first = next(iter(rows.values()))
        ap = "-" if first["mask_ap"] is None else f"{100 * first['mask_ap']:.1f}"
        lines.append([*key, *times, f"{100 * first['agreement']:.1f}", ap])
    return table(lines)


def postprocess_table(contents: list[dict[str, Any]]) -> str:
    """Return one row per scene, with the median milliseconds of each stage."""
    lines = []
    for content in contents:
        for scene, stages in content["scenes"].items():
            if not lines:
                lines = [["post-processing for", "scene", *stages], ["---"] * (len(stages) + 2)]
            times = [f"{stage['p50']:.2f}" for stage in stages.values()]
            lines.append([content["variant"], scene, *times])
    return table(lines)


def table(lines: list[list[str]]) -> str:
    """Format rows of cells as Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine_line(machine: dict[str, str]) -> str:
    """Describe the machine in one sentence."""
    named = (f"{key} {value}" for key, value in machine.items() if key != "load")
    return textwrap.fill(f"Measured on: {', '.join(named)}.", 100, break_on_hyphens=False)


if __name__ == "__main__":
    main()
