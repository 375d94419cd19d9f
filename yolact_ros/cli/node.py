"""`yolact node`: run the ROS 2 node without the `ros2` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def run_node(arguments: Sequence[str]) -> NoReturn:
    """Run the node with the arguments of `ros2 run yolact_ros yolact_node`.

    The process ends with the node's exit status.
    """
    try:
        import rclpy  # noqa: F401
    except ModuleNotFoundError:
        print(
            "yolact node: requires ROS 2, but rclpy cannot be imported. Source the setup.bash "
            "of a ROS 2 installation first, or run `make env` in a clone of the repository.",
            file=sys.stderr,
        )
        sys.exit(1)
    from yolact_ros.ros.program import run

    sys.argv = ["yolact_node", *arguments]
    run("yolact_ros.ros.process")
