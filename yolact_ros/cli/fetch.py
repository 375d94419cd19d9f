"""`yolact fetch`: download a checkpoint that its authors publish."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolact_ros.errors import WeightsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact fetch`."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="variant, e.g. yolact_plus_base; without it, all are listed",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("weights"),
        metavar="FOLDER",
        help="folder for the file (default: %(default)s)",
    )
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="address of a folder with copies of the authors' files, to use instead",
    )


def run(arguments: argparse.Namespace) -> int:
    """Fetch one file, or list all of them."""
    from yolact_ros.model.weights.download import download
    from yolact_ros.model.weights.published import PUBLISHED, published_file

    if arguments.name is None:
        for published in PUBLISHED.values():
            where = "yolact fetch" if published.url else f"by hand: {published.readme}"
            print(f"{published.variant:<34}{published.file:<42}{where}")
        return 0
    published = published_file(arguments.name)
    if arguments.mirror and "*" not in published.file:
        url = f"{arguments.mirror.rstrip('/')}/{published.file}"
    elif published.url:
        url = published.url
    else:
        raise WeightsError(
            f"{published.file} can only be downloaded with a browser; open "
            f"{published.readme}, download it there, and pass it to `yolact convert`."
        )
    path = arguments.output / published.file
    if path.is_file():
        print(f"{path} already exists; delete it to fetch it again.")
        return 0
    digest = download(url, path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")
    print(f"next: yolact convert {path} --variant {published.variant} -o {published.variant}.pth")
    return 0
