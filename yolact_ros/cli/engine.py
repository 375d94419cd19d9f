"""`yolact engine`: compile the graphs of a bundle with TensorRT or TensorRT-RTX.

Experimental: compiled in tests, not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_ros.errors import ConfigError

if TYPE_CHECKING:
    from yolact_ros.runtime.backends.tensorrt.gpu import Gpu
    from yolact_ros.runtime.backends.tensorrt.library import TensorRt
    from yolact_ros.runtime.backends.tensorrt.open import Engine
    from yolact_ros.runtime.bundle import Bundle

# Seconds that an interrupted build has to end.
STOP_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "bundle", type=Path, help="a bundle of: yolact export CHECKPOINT --target tensorrt"
    )
    parser.add_argument(
        "--library",
        choices=("auto", "tensorrt", "tensorrt_rtx"),
        default="auto",
        help="TensorRT, or TensorRT-RTX for GeForce and RTX GPUs (default: what can be imported)",
    )
    parser.add_argument(
        "--target",
        default="this",
        metavar="this|8.9,12.0,...",
        help="the GPU of this machine, or with TensorRT-RTX compute capabilities, for which no "
        "GPU is needed (default: %(default)s)",
    )
    parser.add_argument(
        "--device", type=int, default=0, metavar="N", help="which GPU is this one (%(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="refuse a bundle of another precision; it was chosen with yolact export",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="refuse a bundle for another number of images; it was chosen with yolact export",
    )
    parser.add_argument(
        "--workspace",
        type=int,
        metavar="MiB",
        help="most memory of the GPU that the build may use (default: all; where the CPU shares "
        "it, as on a Jetson, half of what is free)",
    )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="remember times of kernels here, so that the next build is shorter (default: beside "
        "the engines)",
    )
    parser.add_argument(
        "--rebuild", action="store_true", help="build engines that are already there once more"
    )


def run(arguments: argparse.Namespace) -> int:
    """Build what is missing, with a progress bar for each engine."""
    from yolact_ros.runtime.backends.tensorrt.build import BuildSettings
    from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt
    from yolact_ros.runtime.backends.tensorrt.open import check_target, open_engine
    from yolact_ros.runtime.bundle import Bundle

    if arguments.workspace is not None and arguments.workspace < 1:
        raise ConfigError(f"--workspace is {arguments.workspace}; expected 1 MiB or more.")
    bundle = Bundle.open(arguments.bundle)
    check_target(bundle)
    _check_precision_and_batch(bundle, arguments)
    library = import_tensorrt(arguments.library)
    gpus = _targets(arguments, library)
    print(f"{library.label}, {bundle.description.precision}, batch {bundle.description.batch}")
    for gpu in gpus:
        usual = BuildSettings.for_gpu(gpu, library, bundle.folder)
        settings = BuildSettings(
            arguments.workspace or usual.workspace_mib,
            arguments.timing_cache or usual.timing_cache,
        )
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
            what = "built" if engine.built else "is there already"
            print(f"{engine.path}: {len(engine.content) / 1e6:.1f} MB, {what}")
    return 0


def _check_precision_and_batch(bundle: Bundle, arguments: argparse.Namespace) -> None:
    for name in ("precision", "batch"):
        wanted, made = getattr(arguments, name), getattr(bundle.description, name)
        if wanted is not None and wanted != made:
            raise ConfigError(
                f"{bundle.folder} was exported with {name} {made}, which is part of its graphs. "
                "Export it again with: yolact export CHECKPOINT -o BUNDLE --target tensorrt "
                f"--{name} {wanted}"
            )


def _targets(arguments: argparse.Namespace, library: TensorRt) -> list[Gpu]:
    """The GPUs to build for; those of the flag `--target` have no name."""
    from yolact_ros.runtime.backends.tensorrt.gpu import Gpu, find_gpu

    if arguments.target == "this":
        return [find_gpu(arguments.device)]
    wanted = [part.strip() for part in arguments.target.split(",") if part.strip()]
    if not library.ahead_of_time:
        raise ConfigError(
            f"{library.label} builds for the GPU of this machine only (--target this): run "
            "yolact engine on the machine that is to use the engine, or take --library "
            "tensorrt_rtx for GeForce and RTX GPUs."
        )
    unknown = [capability for capability in wanted if capability not in library.capabilities()]
    if unknown or not wanted:
        raise ConfigError(
            f"{library.label} has no compute capability {', '.join(unknown) or 'of no name'}; "
            f"expected some of: {','.join(library.capabilities())}. Jetson and Hopper need "
            "TensorRT itself, on the machine itself."
        )
    return [Gpu("", capability) for capability in wanted]


def _with_bar(open_one: Callable[..., Engine], words: str) -> Engine:
    """Build in another thread, so that the bar moves and Ctrl-C stops the build."""
    from tqdm import tqdm

    fraction = 0.0
    result: list[Engine] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def progress(value: float) -> bool:
        nonlocal fraction
        # Phases begin anew inside each other; a bar that goes back would only confuse.
        fraction = max(fraction, value)
        return not stop.is_set()

    def work() -> None:
        try:
            result.append(open_one(progress=progress))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    with tqdm(total=1000, desc=words, bar_format=form, leave=False) as bar:
        try:
            while thread.is_alive():
                thread.join(0.2)
                bar.update(int(1000 * fraction) - bar.n)
        except KeyboardInterrupt:
            stop.set()
            thread.join(STOP_SECONDS)
            raise
    if errors:
        raise errors[0]
    return result[0]
