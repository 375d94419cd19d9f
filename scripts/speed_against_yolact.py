#!/usr/bin/env python3
"""Time the authors' program and this package on a CPU, on the same weights, image and instances.

    git clone https://github.com/dbolya/yolact
    python scripts/speed_against_yolact.py yolact --instances 100 --threads 1 --json against.json

The network is YOLACT-R50 with random weights, and the two programs take turns. The authors'
program runs without CUDA and TorchScript, which this script switches off from outside.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

from yolact_ros import Segmenter
from yolact_ros.cli.models import export_official
from yolact_ros.config import BackendConfig, PostprocessConfig
from yolact_ros.evaluate.machine import describe_machine
from yolact_ros.evaluate.speed import Times, synthetic_image
from yolact_ros.runtime.preprocess import prepare_image

SIZE = (720, 1280)
CHECKPOINT = "yolact_resnet50_54_800000.pth"  # the name selects the network in both programs


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="clone of the repository dbolya/yolact")
    text = "number of %s (default: %%(default)s)"
    for name, default in (("instances", 100), ("threads", 1), ("frames", 20)):
        add(f"--{name}", type=int, default=default, metavar="N", help=text % name)
    add("--json", type=Path, metavar="FILE", help="write all measurements to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    image = synthetic_image(SIZE)
    theirs = import_program(arguments.folder)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / CHECKPOINT
        net = random_network(theirs, checkpoint)
        export_official(checkpoint, Path(folder) / "bundle")
        backend = BackendConfig("onnxruntime", threads=arguments.threads)
        with Segmenter.open(Path(folder) / "bundle", backend=backend) as segmenter:
            scores = class_scores(segmenter, image)
            # Three times as many priors pass, since NMS drops some, and both keep the best of all
            # classes of these priors, as the authors do.
            threshold = float(np.sort(scores)[-3 * arguments.instances - 1])
            segmenter.postprocess = PostprocessConfig(
                score_threshold=threshold, max_detections=arguments.instances, all_classes=True
            )
            net.detect.conf_thresh = threshold
            theirs["data"].cfg.max_num_detections = arguments.instances
            ways: dict[str, Callable[[], int]] = {
                "yolact_ros": lambda: len(segmenter.segment(image)),
                "dbolya/yolact": lambda: run_program(theirs, net, image),
            }
            report = measure(ways, arguments.frames)
    report["machine"] = {**describe_machine(), "threads": str(arguments.threads)}
    for name, values in report["programs"].items():
        print(f"{name:<14} {values['instances']} instances, ms: {values['milliseconds']}")
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def import_program(folder: Path) -> dict[str, Any]:
    """Import the authors' modules so that they run on a CPU and with current libraries."""
    torch.cuda.current_device = lambda: 0
    torch.cuda.device_count = lambda: 2  # more than one switches TorchScript off
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
    # They are imported, but inference with this network calls neither.
    unused = {name: MagicMock() for name in ("torchvision", "torchvision.models.resnet")}
    sys.modules.update(unused)
    sys.path.insert(0, str(folder.resolve()))
    names = ("data", "yolact", "layers.output_utils", "utils.augmentations")
    modules = {}
    for name in names:
        modules[name] = importlib.import_module(name)
        if name == "data":
            modules[name].set_cfg("yolact_resnet50_config")
    for name in unused:
        del sys.modules[name]
    torch.set_default_dtype(torch.float32)
    return modules


def random_network(theirs: dict[str, Any], checkpoint: Path) -> Any:
    """Return the authors' network with random weights, which `checkpoint` receives, too."""
    torch.manual_seed(0)
    net = theirs["yolact"].Yolact()
    torch.save(net.state_dict(), checkpoint)
    net.eval()
    net.detect.use_fast_nms = True
    net.detect.use_cross_class_nms = False
    theirs["data"].cfg.mask_proto_debug = False
    return net


def class_scores(segmenter: Segmenter, image: np.ndarray) -> np.ndarray:
    """Return the best class score of each prior."""
    tensor, _ = prepare_image(image, segmenter.description.model)
    outputs = segmenter.network.backend.run("detect", {"image": tensor})
    scores: np.ndarray = outputs["class_scores"].max(axis=1)
    return scores


def run_program(theirs: dict[str, Any], net: Any, image: np.ndarray) -> int:
    """Segment one image as the authors' `eval.py` does, up to masks of the image's size."""
    height, width = image.shape[:2]
    with torch.no_grad():
        frame = torch.from_numpy(image).float()
        batch = theirs["utils.augmentations"].FastBaseTransform()(frame.unsqueeze(0))
        found = theirs["layers.output_utils"].postprocess(net(batch), width, height)
    return len(found[0])


def measure(ways: dict[str, Callable[[], int]], frames: int) -> dict[str, Any]:
    """Run the programs in turn; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    instances = {}
    for number in range(frames + 1):
        for name, run in ways.items():
            started = perf_counter()
            instances[name] = run()
            if number:
                times[name].append((perf_counter() - started) * 1e3)
    programs = {
        name: {
            "instances": instances[name],
            "milliseconds": {k: round(v, 1) for k, v in vars(Times.of(values)).items()},
        }
        for name, values in times.items()
    }
    return {"image": f"{SIZE[1]}x{SIZE[0]}", "frames": frames, "programs": programs}


if __name__ == "__main__":
    main()
