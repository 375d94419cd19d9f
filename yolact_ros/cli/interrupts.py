"""Let Ctrl-C and SIGTERM end a verb in the same way, even while a library is computing."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

BACKEND = "yolact_ros.runtime.backends.onnxruntime"


class Terminated(KeyboardInterrupt):
    """Reports SIGTERM; code that saves results on Ctrl-C saves them now as well."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Make SIGTERM raise `Terminated`, and make both signals stop a run of ONNX Runtime.

    Python handles a signal only when a library call returns, which may take very long. However, it
    writes to its wake-up file descriptor at once; a thread reads that and stops the library.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    terminated = False

    def terminate(_: int, __: FrameType | None) -> NoReturn:
        nonlocal terminated
        terminated = True
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    except KeyboardInterrupt as error:  # Ray raises one of its own in place of ours
        if terminated:
            raise Terminated from error
        raise
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket) -> None:
    while received := reader.recv(64):
        backend = sys.modules.get(BACKEND)
        if backend is not None and {signal.SIGINT, signal.SIGTERM} & set(received):
            backend.stop_runs()
