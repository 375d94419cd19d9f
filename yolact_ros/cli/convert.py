"""`yolact convert`: turn an official checkpoint into one of this package."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_ros.config import ModelConfig
from yolact_ros.errors import ConfigError, WeightsError
from yolact_ros.variants import VARIANTS, variant

if TYPE_CHECKING:
    from yolact_ros.model.weights.official import Conversion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact convert`."""
    parser.add_argument("checkpoint", type=Path, help="official .pth file (`yolact fetch NAME`)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument(
        "--variant",
        metavar="NAME",
        help="which network it is; needed only where several have the same entries",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,C",
        help="names of the classes, if they are not the authors'",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="fine-tune on --classes: weights that depend on the classes get new values",
    )


def parse_classes(text: str) -> tuple[str, ...]:
    """Split A,B,C.

    Raises:
        ConfigError: a name is empty or stands twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if "" in names or repeated:
        problem = "an empty name" if "" in names else f"{repeated[0]!r} twice"
        raise ConfigError(
            f"--classes {text!r} has {problem}; expected different names with commas between them."
        )
    return names


def run(arguments: argparse.Namespace) -> int:
    """Convert."""
    start = time.perf_counter()
    import torch

    from yolact_ros.model.weights.checkpoint import (
        initialise_weights,
        load_official_weights,
        read_entries,
        save_checkpoint,
    )
    from yolact_ros.model.weights.download import file_sha256
    from yolact_ros.model.weights.official import class_entries, official_entries
    from yolact_ros.model.yolact import Yolact

    classes = None if arguments.classes is None else parse_classes(arguments.classes)
    if arguments.partial and classes is None:
        raise ConfigError("--partial needs --classes A,B,C: the classes to fine-tune on.")
    path = arguments.checkpoint
    entries = official_entries(read_entries(path), source=str(path))
    if arguments.variant is not None:
        names = [variant(arguments.variant).name]
    else:
        # A file for fine-tuning still has its own classes.
        names = recognised(entries, None if arguments.partial else classes, source=str(path))
    config, same = one_network(names, classes, source=str(path))
    fresh = class_entries(config) if arguments.partial else ()
    torch.manual_seed(0)  # what starts fresh is the same in every conversion
    model = Yolact(config)
    initialise_weights(model)
    conversion = load_official_weights(model, entries, source=str(path), fresh=fresh)
    origin = {"file": path.name, "sha256": file_sha256(path)}
    save_checkpoint(arguments.output, model, extra={"official": origin})
    print_table(config, conversion, entries, fresh=fresh, same=same)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = arguments.output.stat().st_size / 1e6
    seconds = time.perf_counter() - start
    print(f"  parameters         {parameters:12,d}")
    print(f"  written to {arguments.output}: {size:.1f} MB, {seconds:.1f} s")
    return 0


def recognised(
    entries: dict[str, Any], classes: tuple[str, ...] | None, *, source: str
) -> list[str]:
    """`official.recognise`, with what the user can do where it fails."""
    from yolact_ros.model.weights.official import recognise

    try:
        return recognise(entries, classes=classes)
    except WeightsError as error:
        raise WeightsError(
            f"{source}: {error}\nIf it was trained on other classes, name them with "
            "--classes A,B,C; to fine-tune it on others still, say --variant NAME too."
        ) from error


def one_network(
    names: Sequence[str], classes: tuple[str, ...] | None, *, source: str
) -> tuple[ModelConfig, list[str]]:
    """Settle on one of the variants that fit a file.

    Returns:
        The network with the classes asked for, and other names under which it is known.

    Raises:
        ConfigError: the variants are different networks.
    """
    networks = [
        replace(VARIANTS[name], classes=classes or VARIANTS[name].classes) for name in names
    ]
    first = networks[0]
    if any(replace(network, name=first.name) != first for network in networks):
        choices = ", ".join(
            f"{network.name} ({network.input_size[1]} x {network.input_size[0]} pixels)"
            for network in networks
        )
        raise ConfigError(
            f"{source} has the entries of several networks: {choices}. They differ in what no "
            "entry shows; say which it is with --variant NAME. The authors' files are named so."
        )
    return first, list(names[1:])


def print_table(
    config: ModelConfig,
    conversion: Conversion,
    entries: dict[str, Any],
    *,
    fresh: tuple[str, ...],
    same: list[str],
) -> None:
    """Print what became of each entry."""
    height, width = config.input_size
    also = f" (the same network as {', '.join(same)})" if same else ""
    print(f"{config.name}{also}: {width} x {height} pixels, {config.num_classes} classes")
    values = sum(tensor.numel() for tensor in conversion.weights.values())
    print(f"  converted    {len(conversion.weights):5d} entries {values:12,d} values")
    if conversion.counters:
        print(f"  set to zero  {len(conversion.counters):5d} counters that the file lacks")
    for reason, count in Counter(conversion.leftovers.values()).items():
        left = [name for name, why in conversion.leftovers.items() if why == reason]
        values = sum(entries[name].numel() for name in left)
        print(f"  left out     {count:5d} entries {values:12,d} values: {reason}")
    if fresh:
        print(f"  start fresh  {len(fresh):5d} entries: {', '.join(fresh)}")
