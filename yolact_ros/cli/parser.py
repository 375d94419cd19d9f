"""Parse the command line; show an example of each verb, and hints for flags of other programs."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import NoReturn

from yolact_ros.config import with_notes

# Verb -> typical arguments.
EXAMPLES = {
    "predict": "pictures/ --model tools --overlay out/overlays",
    "node": "--ros-args -p model:=tools -r image:=/camera/image_raw",
    "evaluate": "tools --annotations data/val.json --images data/val --report out/report",
    "evaluate-tracks": "tabletop --annotations clips/instances.json --images clips/images",
    "benchmark": "tools --images data/tools/val",
    "bag": "recording out/recording --topic /camera/image_raw --model tools",
    "batch": "recordings/ -o out/results --model tools",
    "import-dataset": "yolo export/ -o data/parts --validation 0.2",
    "check-dataset": "data/parts/train.json --images data/parts/train -o out/check",
    "train": "--data data/parts -o out/parts --set start_from=tools",
    "fetch": "yolact_plus_resnet50 --yes",
    "convert": "mine.pth --classes bolt,nut -o models/mine.pth",
    "export": "out/parts/best.pth -o models/parts --half-weights",
    "quantize": "models/parts -o models/parts_int8 --images data/parts/train",
    "engine": "models/parts",
    "prototypes": "picture.jpg -o out/prototypes.png",
    "serve": "tools tabletop",
    "view": "video.mp4 -o out/video.rrd",
    "simulate": "images --seed 1 --frames 100 -o data/tabletop",
}

# Flag of other programs -> what it is called here.
WORDS = {
    "detect": "predict",
    "segment": "predict",
    "val": "evaluate",
    "test": "evaluate",
    "download": "fetch",
    "--conf": "--score-threshold",
    "--iou": "--nms-iou-threshold",
    "--max-det": "--max-detections",
    "--source": "the sources, without a flag",
    "--weights": "--model",
    "--save": "--overlay FOLDER",
    "--project": "-o FOLDER",
    "--epochs": "--set epochs=N",
    "--batch": "--set batch_size=N",
    "--batch-size": "--set batch_size=N",
    "--lr": "--set optimizer.learning_rate=X",
    "--imgsz": "--set model.input_size=[HEIGHT,WIDTH] in `yolact train`",
    "--patience": "--set patience=N",
}


class HelpFormatter(argparse.HelpFormatter):
    """Shows the default of every option that has one, unless its help explains it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        none = action.default in (None, [], (), argparse.SUPPRESS) or action.default is False
        if none or "default: " in text:
            return text
        return with_notes(text, "default: %(default)s")


class Parser(argparse.ArgumentParser):
    """Parses arguments, and suggests what was probably meant by an unknown one.

    Attributes:
        known: verbs and options to compare a misspelt word with.
    """

    known: Iterable[str] = ()

    def error(self, message: str) -> NoReturn:
        """End the program with status 2 and a message that suggests a fix for an unknown word."""
        unknown = re.search(
            r"VERB: invalid choice: '([^']+)'|unrecognized arguments: (\S+)", message
        )
        if unknown:
            word = (unknown[1] or unknown[2]).partition("=")[0]
            near = difflib.get_close_matches(word, self.known, n=1)
            likely = WORDS.get(word.replace("_", "-")) or (near[0] if near else "")
            message += f"; did you mean {likely}?" if likely else ""
        super().error(message)
