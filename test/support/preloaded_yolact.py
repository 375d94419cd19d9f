"""Serve a cheaper command `yolact` from a process that has already imported the libraries.

Every command is a fork of this process, so it starts in milliseconds, not seconds. It differs from
a real run as follows: commands that take long get the options of `SMALLER`; the backbone
EfficientNet-Lite0 is shallow; the export of a shipped model exports `model.pth`; and the export of
a network with the same configuration and options as an earlier one copies that bundle.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import sys
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

from yolact_ros.cli.main import main
from yolact_ros.config import SHIPPED_MODELS
from yolact_ros.model.backbones import efficientnet
from yolact_ros.model.weights.checkpoint import load_checkpoint

CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
message = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(message).to_bytes(4, "big")], [0, 1, 2])
server.sendall(message)
sys.exit(server.recv(1)[0])
"""
TRAINING = ["steps=1", "batch_size=2", "workers=0", "validation_interval=1", "precision=float32"]
TRAINING += ["pretrained=false"]
SMALLER = {
    "train": [word for change in TRAINING for word in ("--set", change)],
    "config/train_paper.yaml": ["--set", "variant=tabletop"],
    "--data": "--set model.channels=8 --set model.input_size=[96,96]".split()
    + ["--set", "model.mask_rescoring=false"],
    "evaluate": ["--max-detections", "3"],
    "predict": ["--max-detections", "3"],
    "view": ["--max-detections", "3"],
    "simulate": ["--frames", "3"],
    "benchmark": ["--frames", "1", "--threads", "1"],
    "quantize": ["--count", "1", "--float-layers"],
}
MODULES = ["onnxscript", "matplotlib.pyplot", "pybullet", "yolact_ros.train.trainer"]
MODULES += ["yolact_ros.export.to_bundle", "yolact_ros.evaluate.report", "rosbags.rosbag2"]


def shrink_backbone(patch: Callable[[object, str, object], None] = setattr) -> None:
    """Make EfficientNet-Lite0 four blocks deep, so that networks train and export quickly."""
    stages = ((3, 2, 1, 16, 1), (3, 2, 1, 40, 1), (3, 2, 1, 112, 1), (3, 2, 1, 320, 1))
    patch(efficientnet, "LITE0_STAGES", stages)
    patch(efficientnet, "LITE0_TAPS", (1, 2, 3))


def run(words: list[str], exports: Path) -> int:
    """Run one command, made smaller; an export that an earlier page has made is copied."""
    if "--help" in words or words[1].endswith(".json"):
        return main(words)
    words = sum((SMALLER.get(word, []) for word in words[:2]), words)
    if words[0] != "export":
        return main(words)
    model = "model.pth" if words[1] in SHIPPED_MODELS else words[1]
    network, options = repr(load_checkpoint(Path(model)).config), words[4:]
    made = exports / f"{zlib.crc32(repr((network, options)).encode()):08x}"
    if not made.exists():
        status = main(["export", model, "-o", str(made), *options])
        if status:
            return status
    shutil.copytree(made, words[3])
    return 0


def serve(folder: Path) -> None:
    """Write the client FOLDER/yolact and run its commands until this process is ended."""
    shrink_backbone()
    for name in MODULES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen()
    listener.settimeout(5)
    parent = os.getppid()
    (folder / "yolact").write_text(
        CLIENT.format(python=sys.executable, address=str(folder / "socket"))
    )
    (folder / "yolact").chmod(0o755)
    print("ready", flush=True)
    while True:
        try:
            client, _ = listener.accept()
        except TimeoutError:
            if os.getppid() != parent:  # the tests were killed
                return
            continue
        if os.fork():
            client.close()
            continue
        status = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            length, descriptors, _, _ = socket.recv_fds(client, 4, 3)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
            message = client.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
            words, place, environment = json.loads(message)
            os.chdir(place)
            os.environ.clear()
            os.environ.update(environment)
            status = run(words, folder / "exports")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            client.sendall(bytes([status]))
            os._exit(status)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
