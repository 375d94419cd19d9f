"""Run the node as a process: executor, signals, autostart, exit status."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from queue import SimpleQueue

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger

from yolact_ros.errors import YolactError
from yolact_ros.malloc import keep_freed_memory
from yolact_ros.ros.node import BROKEN, NAME, SUCCESS, YolactNode
from yolact_ros.ros.parameters.settings import parameters_usage, tables
from yolact_ros.ros.program import handle_signals, init_ros

FAILED = "failed"
ASKED_TO_END = "asked to end"
JOIN_S = 0.5  # for the executor, which may be in a transition
# How long the worker may wait for another thread's Python code; publishers would take up to 5 ms.
SWITCH_S = 0.0005


class Events(SimpleQueue[str]):
    """Queues the events that the main thread waits for.

    Signals are queued as well: Python runs their handlers in the main thread, which does
    nothing but wait; rclpy's handlers would shut down the context during a publication.

    Attributes:
        ending: whether the process was asked to end.
    """

    def __init__(self) -> None:
        self.ending = False
        handle_signals(self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.ending = True
        self.put(ASKED_TO_END)


def usage() -> str:
    """Return what `yolact_node --help` prints."""
    return parameters_usage(
        "yolact_node",
        "Segment camera images and publish instance masks, boxes and classes.",
        [defaults for _, defaults in tables()],
    )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is asked to end.

    Returns:
        The exit status: 0 after SIGINT, SIGTERM, SIGHUP or the transition shutdown, 1 if the node
        cannot work, in which case it has logged why.
    """
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_S)
    events = Events()
    try:
        init_ros(args)
        node = YolactNode(events.put, lambda: events.ending)
    except YolactError as error:
        get_logger(NAME).fatal(str(error))
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(
        target=_spin, args=(executor, node, events), name="executor", daemon=True
    )
    spinner.start()
    status = _serve(node, events)
    executor.shutdown(JOIN_S)
    spinner.join(JOIN_S)
    if spinner.is_alive() or not node.release():
        # A thread is inside the backend, which cannot be interrupted; nothing remains to be saved.
        node.get_logger().warning("Exiting without waiting for the backend.")
        sys.stderr.flush()
        os._exit(status)
    node.destroy_node()
    rclpy.shutdown()
    return status


def _serve(node: YolactNode, events: Events) -> int:
    """Start the node if autostart is set, and handle events until the process ends."""
    if node.autostart and not _start(node):
        return 0 if events.ending else 1
    while (event := events.get()) == BROKEN:
        if node.is_active:
            node.trigger_deactivate()  # to unconfigured, by way of error processing
        if not node.autostart:
            continue
        if not node.has_worked:
            node.get_logger().fatal("The model was reloaded and failed again.")
            return 1
        node.get_logger().warning("Reloading the model.")
        if not _start(node):
            return 0 if events.ending else 1
    return 1 if event == FAILED else 0


def _start(node: YolactNode) -> bool:
    """Configure and activate; return False on failure, which the node has logged.

    A transition is rejected while a manager runs one; the manager is then in charge.
    """
    for trigger in (node.trigger_configure, node.trigger_activate):
        if trigger() != SUCCESS:
            return not node.diagnostics.fault
    return True


def _spin(executor: SingleThreadedExecutor, node: YolactNode, events: Events) -> None:
    try:
        while True:
            try:
                return executor.spin()
            except MemoryError:  # while a message was taken from the middleware
                node.recover_from_lost_message()
            except InvalidHandle:  # Humble: a transition in the other thread destroyed the entity
                continue
            except RuntimeError as error:  # Humble raises where later distributions warn
                if "failed to send response" not in str(error):
                    raise
                node.get_logger().warning(f"A client did not receive its response: {error}")
    except Exception:  # noqa: BLE001 - without an executor the process must not stay as a shell
        if events.ending:  # it was shut down while it took something from the middleware
            return
        get_logger(NAME).fatal(f"The executor crashed:\n{traceback.format_exc()}")
        events.put(FAILED)
