"""Start the programs in `scripts/`."""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from yolact_ros.errors import ConfigError, YolactError


def handle_signals(handler: Callable[..., Any] | signal.Handlers) -> None:
    """Install one handler for every signal that asks a program to end.

    SIGHUP is sent when a terminal closes; under `nohup`, where it is ignored, it stays ignored.

    Args:
        handler: see `signal.signal`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def run(module: str) -> NoReturn:
    """Run `main()` of a module and exit with its return value.

    Imports take a second; a signal during that time ends the process at once and cleanly, because
    nothing is open yet. The module's `main` installs its own handlers.

    Args:
        module: name of the module.
    """
    handle_signals(lambda *_: os._exit(0))
    program = importlib.import_module(module)
    asked = list(itertools.takewhile(lambda word: word != "--ros-args", sys.argv[1:]))
    if {"-h", "--help"} & set(asked) and hasattr(program, "usage"):
        try:
            print(program.usage(), flush=True)
        except BrokenPipeError:  # as in `yolact_node --help | head`
            os._exit(0)  # the interpreter would flush once more at exit, and complain
        sys.exit(0)
    status = program.main()
    # The interpreter removes handlers at exit; a second signal, as when both terminal and launch
    # send one, would then change the exit status.
    handle_signals(signal.SIG_IGN)
    sys.exit(status)


def run_ros(
    name: str, work: Callable[[], int], *, arguments: list[str] | None = None, interrupted: int = 0
) -> int:
    """Do the work of a program that uses ROS; return the exit status.

    Args:
        name: name of the program, for its messages.
        work: returns the status; ROS is running meanwhile, and signals raise KeyboardInterrupt.
        arguments: ROS arguments; defaults to the command line of the process.
        interrupted: exit status after a signal.
    """
    import rclpy

    handle_signals(signal.default_int_handler)  # raises KeyboardInterrupt
    try:
        init_ros(arguments)
        return work()
    except (YolactError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return interrupted
    finally:
        rclpy.try_shutdown()


def init_ros(arguments: list[str] | None = None) -> None:
    """Initialize ROS for this process; leave signal handling to the program.

    Args:
        arguments: command line; defaults to that of the process.

    Raises:
        ConfigError: the arguments after `--ros-args` are invalid.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # the library does not export its exception type
        if "logging" in str(error):
            raise ConfigError(
                "ROS cannot write its log: the home directory does not exist or is read-only. Set "
                f"ROS_LOG_DIR to a folder that is writable for this user ({error})."
            ) from error
        raise ConfigError(f"ROS rejects the command line: {error}") from error
