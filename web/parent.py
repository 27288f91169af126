"""A process that ends with the one that started it, which may be killed and can then ask for nothing."""

from __future__ import annotations

import os
import signal
import threading
import time

SUPERVISOR = "WEB_SUPERVISOR"
"""The environment's variable with the id of the process that `web.server` runs in."""


def end_with_parent() -> None:
    """Have this process sent SIGTERM when `web.server`, where that started it, is no longer there."""
    if SUPERVISOR in os.environ:
        threading.Thread(target=_watch, args=(int(os.environ[SUPERVISOR]),), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
