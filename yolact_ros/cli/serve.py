"""`yolact serve`: try models on images in the browser."""

from __future__ import annotations

import argparse

from yolact_ros.cli.settings import add_settings, documented, number, read_settings
from yolact_ros.config import BackendConfig
from yolact_ros.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments.

    Example:
        tools tabletop

    Options:
        models: bundles or checkpoints to offer in addition to the shipped models.
        --port: port on 127.0.0.1.
    """
    add = documented(parser, add_arguments)
    add("models", nargs="*", metavar="MODEL")
    add("--port", **number(1, 65535, 7860))
    add_settings(parser.add_argument_group("backend"), BackendConfig())


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from yolact_ros.runtime.segmenter import Segmenter
    from yolact_ros.view.page import MAX_FILE_SIZE, build_page

    backend = read_settings(arguments, BackendConfig())
    for model in arguments.models:  # report missing libraries now, not in the browser
        Segmenter.open(model, backend=backend).close()
    page = build_page(tuple(arguments.models), backend)
    print(f"http://127.0.0.1:{arguments.port} (press Ctrl-C to stop)", flush=True)
    try:
        page.launch(
            server_name="127.0.0.1",
            server_port=arguments.port,
            max_file_size=MAX_FILE_SIZE,
            share=False,
            quiet=True,
        )
    except OSError as error:
        raise ConfigError(
            f"The page cannot be served on port {arguments.port}: {error} Choose another port "
            "with --port."
        ) from error
    return 0
