"""The process of the node: executor, signals, start by itself, exit status."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from queue import SimpleQueue

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger

from yolact_ros.errors import YolactError
from yolact_ros.ros.node import BROKEN, NAME, SUCCESS, YolactNode
from yolact_ros.ros.parameters.table import parameters_usage, tables
from yolact_ros.ros.program import handle_signals, init_ros

FAILED = "failed"
TOLD_TO_END = "told to end"
JOIN_S = 0.5  # for the executor, which may be in a transition


class Events:
    """What the main thread waits for.

    Signals arrive here as words: Python runs their handlers in the main thread, which waits for
    nothing else; handlers of rclpy would end the context in the middle of a publication.

    Attributes:
        ending: whether the process was told to end.
    """

    def __init__(self) -> None:
        self.ending = False
        self._queue: SimpleQueue[str] = SimpleQueue()
        handle_signals(self._on_signal)

    def put(self, event: str) -> None:
        """Announce an event; any thread may."""
        self._queue.put(event)

    def get(self) -> str:
        """Wait for the next event."""
        return self._queue.get()

    def _on_signal(self, *_: object) -> None:
        self.ending = True
        self._queue.put(TOLD_TO_END)


def usage() -> str:
    """Return what `yolact_node --help` prints."""
    return parameters_usage(
        "yolact_node",
        "Segment camera images and publish instance masks, boxes and classes.",
        [defaults for _, defaults in tables()],
    )


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to end.

    Returns:
        The process's exit status: 0 after SIGINT, SIGTERM, SIGHUP or the transition shutdown, 1
        when the node cannot do its work; it has then logged why.
    """
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
        # A thread is inside the backend, which cannot be interrupted; nothing is left to save.
        node.get_logger().warning("Ending without waiting for the image in work.")
        sys.stderr.flush()
        os._exit(status)
    node.destroy_node()
    rclpy.shutdown()
    return status


def _serve(node: YolactNode, events: Events) -> int:
    """Start the node if it is to start by itself, and follow events to the exit status."""
    if node.autostart and not _start(node):
        return 0 if events.ending else 1
    while (event := events.get()) == BROKEN:
        if node.is_active:
            node.trigger_deactivate()  # by way of error processing to unconfigured
        if not node.autostart:
            continue
        if not node.has_worked:
            node.get_logger().fatal("The model was opened anew, and fails again.")
            return 1
        node.get_logger().warning("Opening the model anew.")
        if not _start(node):
            return 0 if events.ending else 1
    return 1 if event == FAILED else 0


def _start(node: YolactNode) -> bool:
    """Configure and activate; return False if that fails, which the node has logged.

    A transition is refused while a manager's own one runs. Then the manager leads the node.
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
    except Exception:  # noqa: BLE001 - without an executor the process must not stay as a shell
        get_logger(NAME).fatal(f"The executor broke down:\n{traceback.format_exc()}")
        events.put(FAILED)
