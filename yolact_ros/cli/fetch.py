"""`yolact fetch`: download an official network and prepare it for use."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolact_ros.cli.settings import FLAG, documented


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact fetch`.

    Example:
        yolact_plus_resnet50 --yes

    Options:
        name: network, e.g. yolact_plus_base (default: list all networks).
        --output: write the bundle to this folder instead of the cache.
        --yes: download without asking.
    """
    add = documented(parser, add_arguments)
    add("name", nargs="?", metavar="NAME")
    add("-o", "--output", type=Path, metavar="BUNDLE")
    add("--yes", **FLAG)


def run(arguments: argparse.Namespace) -> int:
    """Fetch and export one network, or list all networks."""
    from yolact_ros.cli.models import export_official, fetch_official
    from yolact_ros.model.weights.published import PUBLISHED
    from yolact_ros.runtime.shipped import cached_bundle, cached_name

    if arguments.name is None:
        for published in PUBLISHED.values():
            where = "yolact fetch" if published.url else f"by hand: {published.readme}"
            print(f"{published.variant:<34}{published.file:<42}{where}")
        return 0
    file = fetch_official(arguments.name, yes=arguments.yes)
    folder = None if arguments.output else cached_bundle(cached_name("*", file))
    print(folder or export_official(file, arguments.output))
    print(f"Next: yolact predict IMAGE --model {arguments.output or arguments.name}")
    return 0
