"""The endpoint as a process of its own for a while, started as the image starts it: for notebooks and benchmarks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from pydantic import SecretStr

from melodify_lib.errors import ModelError
from melodify_lib.settings import Settings
from serving import COMMAND


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def predict(self) -> str:
        """Where requests are posted."""
        return f"{self.url}/predict"


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    """A server under `settings`, ready, on a free port of this machine; ended in order by SIGTERM.

    Raises `ModelError` with the end of its log when it ends by itself.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MELODIFY_", "AIP_"))}
    environment |= {"AIP_HTTP_PORT": str(port), **_variables(settings)}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        command = [sys.executable, *COMMAND[1:], "--bind", f"127.0.0.1:{port}"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603, our own command
        try:
            while not _is_ready(port):
                if process.poll() is not None:
                    said = Path(folder, "log").read_text(encoding="utf-8", errors="replace")
                    raise ModelError(f"the server ended with {process.returncode}: {said[-2000:]}")
                time.sleep(0.05)
            yield Running(process, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait()


def _variables(settings: Settings) -> dict[str, str]:
    """The environment that gives the same settings."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()
    }
    return {f"MELODIFY_{name.upper()}": str(value) for name, value in plain.items() if value not in (None, "")}


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:  # not listening yet
        return False
    finally:
        connection.close()
