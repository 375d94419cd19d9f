"""`yolact fetch`: download an official network and make it ready to use."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact fetch`."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="variant, e.g. yolact_plus_base; without it, all are listed",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="BUNDLE", help="folder to write instead of the cache"
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="address of a folder with copies of the authors' files, to use instead",
    )
    parser.add_argument("--yes", action="store_true", help="download without asking")


def run(arguments: argparse.Namespace) -> int:
    """Fetch and export one network, or list what there is."""
    from yolact_ros.cli.models import export_official, fetch_official
    from yolact_ros.model.weights.published import PUBLISHED
    from yolact_ros.runtime.shipped import cached_bundle, cached_name

    if arguments.name is None:
        for published in PUBLISHED.values():
            where = "yolact fetch" if published.url else f"by hand: {published.readme}"
            print(f"{published.variant:<34}{published.file:<42}{where}")
        return 0
    file = fetch_official(arguments.name, mirror=arguments.mirror, yes=arguments.yes)
    folder = None if arguments.output else cached_bundle(cached_name("*", file))
    print(folder or export_official(file, arguments.output))
    print(f"next: yolact predict IMAGE --model {arguments.output or arguments.name}")
    return 0
