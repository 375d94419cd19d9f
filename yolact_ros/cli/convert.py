"""`yolact convert`: convert an official checkpoint to this package's format."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.cli.settings import distinct_names, documented
from yolact_ros.config import ModelConfig

if TYPE_CHECKING:
    from yolact_ros.model.weights.official import Conversion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact convert`.

    Example:
        mine.pth --classes bolt,nut -o models/mine.pth

    Options:
        checkpoint: official .pth file, e.g. from `yolact fetch`.
        --output: checkpoint to write.
        --variant: network that the file holds; needed only if several networks have the same
            entries.
        --classes: class names, if they differ from the authors'.
    """
    add = documented(parser, add_arguments)
    add("checkpoint", metavar="CHECKPOINT", type=Path)
    add("-o", "--output", type=Path, required=True)
    add("--variant", metavar="NAME")
    add("--classes", type=distinct_names, metavar="A,B,C")


def run(arguments: argparse.Namespace) -> int:
    """Convert the checkpoint and print a summary."""
    start = time.perf_counter()
    from yolact_ros.files import file_sha256
    from yolact_ros.model.weights.checkpoint import (
        load_official_weights,
        read_entries,
        save_checkpoint,
    )
    from yolact_ros.model.weights.official import identify, official_entries
    from yolact_ros.model.yolact import Yolact

    path = arguments.checkpoint
    entries = official_entries(read_entries(path), source=str(path))
    config, same = identify(
        entries, source=path, name=arguments.variant, classes=arguments.classes
    )
    model = Yolact(config)
    conversion = load_official_weights(model, entries, source=str(path))
    origin = {"file": path.name, "sha256": file_sha256(path)}
    save_checkpoint(arguments.output, model, extra={"official": origin})
    print_table(config, conversion, entries, same=same)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = arguments.output.stat().st_size / 1e6
    seconds = time.perf_counter() - start
    print(f"  parameters         {parameters:12,d}")
    print(f"  written to {arguments.output}: {size:.1f} MB, {seconds:.1f} s")
    return 0


def print_table(
    config: ModelConfig, conversion: Conversion, entries: dict[str, Any], *, same: list[str]
) -> None:
    """Print how many entries were converted or left out, and why."""
    height, width = config.input_size
    also = f" (the same network as {', '.join(same)})" if same else ""
    print(f"{config.name}{also}: {width} x {height} pixels, {config.num_classes} classes")
    values = sum(tensor.numel() for tensor in conversion.weights.values())
    print(f"  converted    {len(conversion.weights):5d} entries {values:12,d} values")
    if conversion.counters:
        print(f"  set to zero  {len(conversion.counters):5d} counters missing from the file")
    for reason, count in Counter(conversion.leftovers.values()).items():
        left = [name for name, why in conversion.leftovers.items() if why == reason]
        values = sum(entries[name].numel() for name in left)
        print(f"  left out     {count:5d} entries {values:12,d} values: {reason}")
