#!/usr/bin/env python3
"""Build, check and time a network on this machine's GPU; print a table and write a JSON file.

    python3 scripts/run_on_gpu.py out/tools/last.pth --images photographs/ -o out/gpu
    python3 scripts/run_on_gpu.py out/tools/last.pth --images photographs/ --annotations val.json
    python3 scripts/run_on_gpu.py --bundles tools_fp16 tools_int8 --images photographs/ --quick

For owners of a Jetson or another NVIDIA GPU. A checkpoint requires torch on this machine; bundles
that were exported on a PC (`yolact export --target tensorrt`) do not. Bundles run on TensorRT and
on ONNX Runtime's CUDA provider, whichever are installed, otherwise on the CPU. A part for which
something is missing is skipped, and the reason is printed. Results are written after each
measurement, and a measurement that fails does not end the others.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from yolact_ros.config import BackendConfig, PostprocessConfig
from yolact_ros.errors import YolactError
from yolact_ros.evaluate.machine import describe_machine
from yolact_ros.evaluate.speed import measure_speed
from yolact_ros.runtime.backends import Backend
from yolact_ros.runtime.backends.onnxruntime import available_providers
from yolact_ros.runtime.backends.open import open_backend
from yolact_ros.runtime.backends.tensorrt.driver import find_gpu
from yolact_ros.runtime.backends.tensorrt.library import import_tensorrt
from yolact_ros.runtime.bundle import Bundle, ModelDescription
from yolact_ros.runtime.detections import Detections
from yolact_ros.runtime.images.files import find_files, read_frames
from yolact_ros.runtime.preprocess import prepare_image
from yolact_ros.runtime.segmenter import Segmenter
from yolact_ros.runtime.video.tracking import pairwise_box_iou

PRECISIONS = ("fp32", "fp16", "int8")
# Options of the exports; int8 is made from fp32.
EXPORTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    # For deformable convolutions: TensorRT's plugin, half sampling.
    "fp16_deform_conv": {"precision": "fp16", "deform_conv": "deform_conv"},
    "fp16_half_sampling": {"precision": "fp16", "sampling": "half"},
}
DEFORMABLE = ("fp16_deform_conv", "fp16_half_sampling")
CHECKED_IMAGES = 20
CALIBRATION_IMAGES = 100
SAME_INSTANCE = 0.5  # box IoU above which two detections of a class are the same
SCORE = PostprocessConfig(score_threshold=0.3)
BOX_GOAL, MASK_GOAL = 0.5, 0.99  # pixels, IoU

Row = dict[str, Any]


def main() -> int:
    """Run all parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    text = "checkpoint to export on this machine; requires torch"
    add("checkpoint", type=Path, nargs="?", metavar="CHECKPOINT", help=text)
    text = "bundles that were exported on a PC"
    add("--bundles", type=Path, nargs="+", default=[], metavar="BUNDLE", help=text)
    text = "folder of images; choose ones similar to those that will be segmented"
    add("--images", type=Path, required=True, metavar="FOLDER", help=text)
    add(
        "--annotations",
        type=Path,
        metavar="JSON",
        help="annotations of these images in COCO format, to measure AP",
    )
    text = "folder for the results (default: %(default)s)"
    add("-o", "--output", type=Path, default=Path("out/gpu"), metavar="FOLDER", help=text)
    text = "precisions to measure (default: all)"
    add("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help=text)
    text = "batch sizes to measure (default: 1 2 4 8)"
    add("--batches", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N", help=text)
    text = "number of runs per timing (default: %(default)s)"
    add("--runs", type=int, default=200, metavar="N", help=text)
    text = "measure only one bundle, in fp16, without keyframes and batches"
    add("--quick", action="store_true", help=text)
    arguments = parser.parse_args()
    if (arguments.checkpoint is None) == (not arguments.bundles):
        parser.error("give either a checkpoint, or bundles with --bundles")
    if arguments.quick:
        arguments.precisions, arguments.batches = ["fp16"], []
        arguments.bundles = arguments.bundles[:1]
    arguments.output.mkdir(parents=True, exist_ok=True)
    run = GpuRun(arguments)
    parts = [run.describe_machine, run.make_bundles]
    if arguments.checkpoint is not None:
        parts += [run.compare_with_torch, run.time_torch, run.time_network]
    parts.append(run.time_bundles)
    if arguments.checkpoint is not None and not arguments.quick:
        parts += [run.time_batches, run.time_masks]
    if not arguments.quick:
        parts.append(run.time_keyframes)
    for part in parts:
        title = str(part.__doc__)
        print(f"\n== {title}", flush=True)
        with run.attempt(title):
            part()
    print(f"\n-> {run.path}")
    return 0


def is_deformable(checkpoint: Path) -> bool:
    """Return whether a network has deformable convolutions, which have forms to compare."""
    from yolact_ros.model.deform_conv import DeformConv2d
    from yolact_ros.model.weights.checkpoint import load_model

    return any(isinstance(module, DeformConv2d) for module in load_model(checkpoint).modules())


class GpuRun:
    """Runs the parts, which share bundles, images and results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.results: dict[str, Any] = {}
        self.path = arguments.output / "gpu.json"
        files = find_files([arguments.images])[:CALIBRATION_IMAGES]
        self.images = [f.image for f in read_frames(files) if f.image is not None]
        self.bundles: dict[str, Path] = {}
        self.backends = {"onnxruntime cpu": BackendConfig("onnxruntime")}

    def describe_machine(self) -> None:
        """Describe the machine."""
        if self.arguments.checkpoint is not None:
            import torch
        found: Row = dict(describe_machine())
        on_gpu, missing = {}, []
        try:
            found["gpu"] = dataclasses.asdict(find_gpu())
            found["tensorrt"] = import_tensorrt().label
            on_gpu["tensorrt"] = BackendConfig("tensorrt")
        except YolactError as error:
            missing.append(str(error))
        try:
            if "cuda" in available_providers():
                on_gpu["onnxruntime cuda"] = BackendConfig("onnxruntime", provider="cuda")
            else:
                missing.append("This ONNX Runtime lacks CUDA; onnxruntime-gpu has it.")
        except YolactError as error:  # a robot with TensorRT does not need it
            missing.append(str(error))
        self.backends = on_gpu or self.backends
        found |= {"backends": list(self.backends), "missing": missing}
        if self.arguments.checkpoint is not None:
            found["torch_cuda"] = torch.cuda.is_available()
        commands = {"power_mode": "nvpmodel -q", "clocks": "jetson_clocks --show"}
        for name, command in commands.items():
            if shutil.which(command.split()[0]):
                answer = subprocess.run(
                    command.split(), capture_output=True, text=True, timeout=20
                )
                found[name] = answer.stdout.strip()
        self.results["machine"] = found
        for name, value in found.items():
            print(f"{name}: {value}")

    def make_bundles(self) -> None:
        """Create bundles and engines."""
        if self.arguments.checkpoint is None:
            for folder in self.arguments.bundles:
                with self.attempt(f"{folder} bundle"):
                    self.note_bundle(folder.name, folder)
            return
        from yolact_ros.export.int8_bundle import quantize_bundle

        keyframes = not self.arguments.quick
        names = list(self.arguments.precisions)
        if "fp16" in names and keyframes and is_deformable(self.arguments.checkpoint):
            names += DEFORMABLE
        for name in names:
            with self.attempt(f"{name} bundle"):
                if name != "int8":
                    self.note_bundle(name, self.export(name, **EXPORTS[name], keyframes=keyframes))
                    continue
                source = self.bundles.get("fp32") or self.export("fp32", keyframes=keyframes)
                model = Bundle.open(source).description.model
                tensors = [prepare_image(image, model)[0] for image in self.images]
                folder = self.arguments.output / name
                quantize_bundle(source, folder, tensors, target="tensorrt")
                self.note_bundle(name, folder)

    def export(self, name: str, **options: Any) -> Path:
        """Export the checkpoint to a bundle for TensorRT; return its folder."""
        from yolact_ros.export.options import ExportOptions
        from yolact_ros.export.to_bundle import export_bundle

        folder: Path = self.arguments.output / name
        export_bundle(
            self.arguments.checkpoint, folder, ExportOptions(target="tensorrt", **options)
        )
        return folder

    def note_bundle(self, name: str, folder: Path) -> None:
        """Open a bundle once, which builds its engines, and record the time."""
        started = time.perf_counter()
        with self.open(folder):
            seconds = time.perf_counter() - started
        self.bundles[name] = folder
        print(f"{name}: opened after {seconds:.1f} s")
        self.results.setdefault("open_seconds", {})[name] = seconds

    def compare_with_torch(self) -> None:
        """Compare results with torch on the CPU: boxes in pixels, masks by IoU."""
        with Segmenter.open(self.arguments.checkpoint, postprocess=SCORE) as torch_segmenter:
            expected = [torch_segmenter.segment(i) for i in self.images[:CHECKED_IMAGES]]
            self.note_ap("torch", torch_segmenter)
        for name, folder, config in self.rows():
            with self.attempt(name), self.open(folder, config) as segmenter:
                found = [segmenter.segment(i) for i in self.images[:CHECKED_IMAGES]]
                row = agreement(found, expected)
                self.results.setdefault("agreement", {})[name] = row
                compared = (
                    f"boxes differ by {row['box_pixels']:.2f} pixels at most (goal {BOX_GOAL}), "
                    f"smallest mask IoU {row['mask_iou']:.4f} (goal {MASK_GOAL})"
                )
                counts = f"{row['matched']} matched, {row['missed']} missed, {row['added']} added"
                print(f"{name}: {counts};", compared if row["matched"] else "none to compare")
                self.note_ap(name, segmenter)

    def time_torch(self) -> None:
        """Time PyTorch on the GPU, in milliseconds from host image to host detections."""
        import torch

        if not torch.cuda.is_available():
            print("skipped: torch finds no GPU")
            return
        from yolact_ros.model.weights.checkpoint import load_model
        from yolact_ros.runtime.backends.pytorch import TorchBackend

        for name in ("eager", "compiled"):
            description = open_backend(self.arguments.checkpoint)[1]
            network = load_model(self.arguments.checkpoint)
            if name == "compiled":
                network.compile(mode="max-autotune")
            backend = TorchBackend(network, device="cuda")
            with self.attempt(f"torch {name}"), Segmenter(backend, description, SCORE) as opened:
                self.note_times(f"torch {name}", opened)

    def time_network(self) -> None:
        """Time the network alone in PyTorch, eager and as a CUDA graph, in milliseconds."""
        import torch

        if not torch.cuda.is_available():
            print("skipped: torch finds no GPU")
            return
        from yolact_ros.model.weights.checkpoint import load_model

        rows = self.results["network_milliseconds"] = {}
        for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
            with self.attempt(f"network {name}"), torch.inference_mode():
                network = load_model(self.arguments.checkpoint).eval().to("cuda", dtype)
                image = torch.rand(1, 3, *network.config.input_size, device="cuda", dtype=dtype)
                graph = torch.cuda.CUDAGraph()
                for _ in range(3):  # chooses algorithms and allocates before the capture
                    network(image)
                with torch.cuda.graph(graph):
                    network(image)
                for how, launch in (("eager", partial(network, image)), ("graph", graph.replay)):
                    call = partial(finish, launch, torch.cuda.synchronize)
                    rows[f"{name} {how}"] = milliseconds(call, self.arguments.runs)
                    print(f"{name} {how}: {rows[f'{name} {how}']:.3f} ms")

    def time_bundles(self) -> None:
        """Time bundles, in milliseconds from host image to host detections."""
        for name, folder, config in self.rows():
            with self.attempt(name), self.open(folder, config) as segmenter:
                self.note_times(name, segmenter)

    def rows(self) -> Iterator[tuple[str, Path, BackendConfig]]:
        """Return each library with each bundle: a name, the bundle and the backend."""
        for library, config in self.backends.items():
            for precision, folder in self.bundles.items():
                yield f"{library} {precision}", folder, config

    def time_batches(self) -> None:
        """Time batches in half precision, in milliseconds per run."""
        rows = self.results["batches"] = {}
        for batch in self.arguments.batches:
            with self.attempt(f"batch {batch}"):
                folder = self.export(f"fp16_batch{batch}", precision="fp16", batch=batch)
                backend, description = self.open_backend(folder)
                tensors = [prepare_image(i, description.model)[0] for i in self.images[:1]] * batch
                inputs = {"image": np.concatenate(tensors)}
                run = partial(backend.run, "detect", inputs)
                rows[batch] = milliseconds(run, self.arguments.runs)
                backend.close()
                print(f"batch {batch}: {rows[batch]:.3f} ms, {rows[batch] / batch:.3f} an image")

    def time_masks(self) -> None:
        """Time masks assembled on the host or inside the graph, in milliseconds per frame."""
        for masks in ("host", "graph"):
            with self.attempt(f"masks: {masks}"):
                folder = self.export(f"fp16_masks_{masks}", precision="fp16", masks=masks)
                with self.open(folder) as segmenter:
                    self.note_times(f"masks: {masks}", segmenter)
        times = self.results.get("milliseconds", {})
        found = {masks: times.get(f"masks: {masks}") for masks in ("host", "graph")}
        if all(found.values()):
            self.results["faster_masks"] = min(found, key=lambda masks: found[masks]["total"])
            print(f"faster here: --masks {self.results['faster_masks']}")

    def time_keyframes(self) -> None:
        """Time keyframes and frames between them, in milliseconds per run."""
        rows = self.results["keyframes"] = {}
        for precision, folder in self.bundles.items():
            with self.attempt(precision), contextlib.ExitStack() as stack:
                backend, description = self.open_backend(folder)
                stack.callback(backend.close)
                if not description.warps:
                    continue
                model, run = description.model, backend.run
                tensor, _ = prepare_image(self.images[0], model)
                image = {"image": np.concatenate([tensor] * description.batch)}
                keep = ("x4", "x5", "lateral")
                kept = run("keyframe", image, keep=keep)
                features = {name: kept[name] for name in keep if name in kept}
                flow = np.zeros((description.batch, 2, *model.feature_sizes[1]), np.float32)
                inputs = {**image, "flow": flow, "x4": kept["x4"], "x5": kept["x5"]}
                calls = {
                    "keyframe": partial(run, "keyframe", image, keep=keep),
                    "non_keyframe_flow": partial(run, "non_keyframe_flow", inputs),
                }
                if "learned" in description.warps:
                    calls["non_keyframe"] = partial(run, "non_keyframe", {**image, **features})
                row = {name: milliseconds(c, self.arguments.runs) for name, c in calls.items()}
                memory = getattr(backend, "device_memory", None)
                if memory is not None:
                    row["device_megabytes"] = memory / 1e6
                rows[precision] = row
                print(precision, {name: round(value, 3) for name, value in row.items()})

    def open_backend(
        self, path: Path, config: BackendConfig | None = None
    ) -> tuple[Backend, ModelDescription]:
        """Open a bundle on a backend, by default on the first that is available."""
        with contextlib.suppress(OSError):  # no permission
            for folder in self.bundles.values():  # similar graphs: the next engine builds faster
                for timings in folder.glob("*.timing"):
                    if not (path / timings.name).exists():
                        shutil.copy(timings, path)
        return open_backend(path, config or next(iter(self.backends.values())))

    def open(self, path: Path, config: BackendConfig | None = None) -> Segmenter:
        """Open a bundle as a segmenter."""
        return Segmenter(*self.open_backend(path, config), SCORE)

    def note_times(self, name: str, segmenter: Segmenter) -> None:
        """Record the median times of frames and of their stages."""
        segmenter.warm_up()
        report = measure_speed(segmenter.segment, cycle(self.images), frames=self.arguments.runs)
        row = {stage: times.p50 for stage, times in report.stages.items()}
        self.results.setdefault("milliseconds", {})[name] = row
        print(f"{name}: " + ", ".join(f"{stage} {value:.2f}" for stage, value in row.items()))

    def note_ap(self, name: str, segmenter: Segmenter) -> None:
        """Record the mask and box AP, if there are annotations."""
        if not self.arguments.annotations:
            return
        from yolact_ros.datasets.coco import CocoDataset
        from yolact_ros.evaluate.coco_map import evaluate_dataset

        config = dataclasses.replace(segmenter.postprocess, score_threshold=0.05)
        dataset = CocoDataset(
            self.arguments.annotations,
            self.arguments.images,
            classes=segmenter.description.model.classes,
        )
        segment = partial(segmenter.segment, postprocess=config)
        scores = dataclasses.asdict(evaluate_dataset(segment, dataset).scores)
        row = {kind: scores[kind]["ap"] for kind in ("box", "mask")}
        self.results.setdefault("ap", {})[name] = row
        print(f"{name}: box AP {100 * row['box']:.2f}, mask AP {100 * row['mask']:.2f}")

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Report any error, and write what there is, to keep hours of other results."""
        failures = self.results.setdefault("failures", {})
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a part raises
            failures[what] = f"{type(error).__name__}: {error}"
            print(f"{what}: not possible: {error}")
            if not isinstance(error, YolactError):
                traceback.print_exception(error)
        finally:
            self.path.write_text(json.dumps(self.results, indent=1) + "\n")


def agreement(found: Sequence[Detections], expected: Sequence[Detections]) -> Row:
    """Match detections of the same images, and measure how far they differ."""
    from yolact_ros.evaluate.confusion import match_instances

    matched, missed, added = 0, 0, 0
    pixels: list[float] = []
    overlaps: list[float] = []
    for ours, theirs in zip(found, expected, strict=True):
        same = ours.class_ids[:, None] == theirs.class_ids
        iou = np.where(same, pairwise_box_iou(ours.boxes, theirs.boxes), 0.0)
        matches = match_instances(iou, ours.scores, threshold=SAME_INSTANCE)
        rows = np.flatnonzero(matches >= 0)
        matched += len(rows)
        missed += len(theirs) - len(rows)
        added += len(ours) - len(rows)
        for i, j in zip(rows.tolist(), matches[rows].tolist(), strict=True):
            pixels.append(float(np.abs(ours.boxes[i] - theirs.boxes[j]).max()))
            a, b = ours[i].mask, theirs[j].mask
            overlaps.append(float((a & b).sum() / max((a | b).sum(), 1)))
    return {
        "matched": matched, "missed": missed, "added": added,
        "box_pixels": max(pixels, default=0.0), "mask_iou": min(overlaps, default=1.0),
        "mean_mask_iou": float(np.mean(overlaps or [1.0])),
    }  # fmt: skip


def finish(launch: Callable[[], Any], synchronize: Callable[[], None]) -> None:
    """Launch work on the GPU and wait for it."""
    launch()
    synchronize()


def milliseconds(call: Callable[[], Any], runs: int) -> float:
    """Return the median time of a call, after a few calls to warm up."""
    for _ in range(5):
        call()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    raise SystemExit(main())
