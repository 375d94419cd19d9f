"""How the programs in `scripts/` start."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import NoReturn


def run(module: str) -> NoReturn:
    """Run `main()` of a module and exit with what it returns.

    Imports take a second; a signal in that time ends the process at once and cleanly, for nothing
    is open yet. The module's `main` sets handlers of its own.

    Args:
        module: name of the module.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    sys.exit(importlib.import_module(module).main())
