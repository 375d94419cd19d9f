"""`yolact engine`: compile the graphs of a bundle with TensorRT or TensorRT-RTX.

Experimental: tests compile engines, and one GPU has run those of TensorRT-RTX.
"""

from __future__ import annotations

import argparse
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.cli.settings import FLAG, documented, number
from yolact_ros.errors import ConfigError

if TYPE_CHECKING:
    from yolact_ros.runtime.backends.tensorrt.cache import Engine
    from yolact_ros.runtime.backends.tensorrt.driver import Gpu
    from yolact_ros.runtime.backends.tensorrt.library import TensorRt

# Seconds for an interrupted build to stop.
STOP_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `yolact engine`.

    Example:
        models/parts

    Options:
        bundle: bundle from `yolact export --target tensorrt`.
        --library: TensorRT, or TensorRT-RTX for GeForce and RTX GPUs (default: the installed one).
        --target: GPU to build for: that of this machine or, with TensorRT-RTX, a list of compute
            capabilities, for which this machine needs no GPU.
        --device: index of the GPU.
        --workspace: maximum GPU memory for the build, in MiB (default: all; half of the free
            memory where CPU and GPU share it, as on a Jetson).
        --rebuild: rebuild engines that already exist.
    """
    add = documented(parser, add_arguments)
    add("bundle", metavar="BUNDLE", type=Path)
    add("--library", choices=("auto", "tensorrt", "tensorrt_rtx"), default="auto")
    add("--target", default="this", metavar="this|8.9,12.0,...")
    add("--device", **number(0, 1000, 0))
    add("--workspace", **number(1, 10**9))
    add("--rebuild", **FLAG)


def run(arguments: argparse.Namespace) -> int:
    """Build missing engines, with a progress bar for each."""
    from yolact_ros.runtime.backends.tensorrt.build import BuildSettings
    from yolact_ros.runtime.backends.tensorrt.cache import (
        check_target,
        engine_folders,
        open_engine,
        writable_folder,
    )
    from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt
    from yolact_ros.runtime.bundle import Bundle

    logging.getLogger("yolact_ros").setLevel(logging.INFO)  # e.g. the memory that a build took
    bundle = Bundle.open(arguments.bundle)
    check_target(bundle)
    library = import_tensorrt(arguments.library)
    gpus = _targets(arguments, library)
    print(f"{library.label}, {bundle.description.precision}, batch {bundle.description.batch}")
    folder = writable_folder(engine_folders(bundle))
    for gpu in gpus:
        settings = BuildSettings.for_gpu(gpu, library, folder)
        if arguments.workspace:
            settings = replace(settings, workspace_mib=arguments.workspace)
        for graph in bundle.graphs:
            open_one = partial(
                open_engine,
                bundle,
                graph,
                library=library,
                gpu=gpu,
                policy="always" if arguments.rebuild else "if_missing",
                settings=settings,
            )
            engine = _with_bar(open_one, f"{graph} sm_{gpu.compute_capability.replace('.', '')}")
            what = "built" if engine.built else "already exists"
            print(f"{engine.path}: {len(engine.content) / 1e6:.1f} MB, {what}")
    return 0


def _targets(arguments: argparse.Namespace, library: TensorRt) -> list[Gpu]:
    """Return the GPUs to build for; those of `--target` have no name."""
    from yolact_ros.runtime.backends.tensorrt.driver import Gpu, find_gpu

    if arguments.target == "this":
        return [find_gpu(arguments.device)]
    wanted = [part.strip() for part in arguments.target.split(",") if part.strip()]
    if not library.ahead_of_time:
        raise ConfigError(
            f"{library.label} builds only for the GPU of this machine (--target this). Run "
            "`yolact engine` on the machine that will use the engine, or, for GeForce and RTX "
            "GPUs, use --library tensorrt_rtx."
        )
    unknown = [capability for capability in wanted if capability not in library.capabilities()]
    if unknown or not wanted:
        raise ConfigError(
            f"{library.label} does not support compute capability "
            f"{', '.join(unknown) or '(none)'}; expected some of: "
            f"{','.join(library.capabilities())}. Jetson and Hopper require TensorRT, run on the "
            "machine itself."
        )
    return [Gpu("", capability) for capability in wanted]


def _with_bar(open_one: Callable[..., Engine], title: str) -> Engine:
    """Build in another thread, so that the bar advances and Ctrl-C stops the build."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    fraction = 0.0
    done: Future[Engine] = Future()
    stop = threading.Event()

    def progress(value: float) -> bool:
        nonlocal fraction
        fraction = value
        return not stop.is_set()

    def work() -> None:
        try:
            done.set_result(open_one(progress=progress))
        except BaseException as error:
            done.set_exception(error)

    # Not an executor, whose thread would delay the end of an interrupted program.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    with (
        logging_redirect_tqdm(),
        tqdm(total=1000, desc=title, bar_format=form, leave=False) as bar,
    ):
        try:
            while thread.is_alive():
                thread.join(0.2)
                bar.update(int(1000 * fraction) - bar.n)
        except KeyboardInterrupt:
            stop.set()
            thread.join(STOP_SECONDS)
            raise
    return done.result()
