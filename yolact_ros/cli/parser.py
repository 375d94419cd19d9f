"""Parse the command line, with hints for flags of other programs."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable
from typing import NoReturn

from yolact_ros.config import with_notes

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
