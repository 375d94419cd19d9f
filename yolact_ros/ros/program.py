"""How the programs in `scripts/` start."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from yolact_ros.errors import ConfigError


def handle_signals(handler: Callable[..., Any] | signal.Handlers) -> None:
    """Install one handler for every signal that asks a program to end.

    SIGHUP comes when a terminal is closed; under `nohup`, where it is ignored, it stays ignored.

    Args:
        handler: as for `signal.signal`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def run(module: str) -> NoReturn:
    """Run `main()` of a module and exit with what it returns.

    Imports take a second; a signal in that time ends the process at once and cleanly, for nothing
    is open yet. The module's `main` sets handlers of its own.

    Args:
        module: name of the module.
    """
    handle_signals(lambda *_: os._exit(0))
    program = importlib.import_module(module)
    asked = list(itertools.takewhile(lambda word: word != "--ros-args", sys.argv[1:]))
    if {"-h", "--help"} & set(asked) and hasattr(program, "usage"):
        print(program.usage())
        sys.exit(0)
    status = program.main()
    # The interpreter gives handlers up when it ends; a second signal, as when both terminal and
    # launch send one, would then change the status.
    handle_signals(signal.SIG_IGN)
    sys.exit(status)


def init_ros(arguments: list[str] | None = None) -> None:
    """Start ROS for this process; signals stay with the program.

    Args:
        arguments: of the command line; by default those of the process.

    Raises:
        ConfigError: what follows `--ros-args` cannot be understood.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # the library does not export its exception type
        if "logging" in str(error):
            raise ConfigError(
                "ROS cannot write its log: there is no home directory, or it is read-only. Set "
                f"ROS_LOG_DIR to a folder that this user may write to ({error})."
            ) from error
        raise ConfigError(f"ROS does not understand the command line: {error}") from error
