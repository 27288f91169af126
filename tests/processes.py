"""Servers of ours as processes, each with a folder of its own: what their tests share."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

OURS = ("MELODIFY_", "AIP_", "WEB_", "DJANGO_", "DATABASE")


def free_port() -> int:
    """That nobody listens on, as yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def environment() -> dict[str, str]:
    """That of these tests, without what sets up a server of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


@dataclass
class Running:
    """A server; its standard output and error are ``log`` in its folder."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    patience_s: ClassVar[float] = 60
    look_every_s: ClassVar[float] = 0.05

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Each line of the log; all are JSON."""
        return [json.loads(line) for line in self.log().splitlines()]

    def wait_for(self, condition: Callable[[], Any], seconds: float | None = None) -> Any:
        """What `condition` gives as soon as that is something."""
        seconds = self.patience_s if seconds is None else seconds
        ends_at = time.monotonic() + seconds
        while not (met := condition()):
            assert time.monotonic() < ends_at, f"waited {seconds} s in vain; {self.log()[-4000:]}"
            time.sleep(self.look_every_s)
        return met
