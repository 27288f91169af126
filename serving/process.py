"""The endpoint as a process of its own for a while, started as the image starts it: for notebooks and benchmarks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from melodify_lib.errors import ModelError
from melodify_lib.settings import Settings
from serving import command


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    process: subprocess.Popen[bytes]
    port: int

    def predict(self, *instances: dict[str, Any], **parameters: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON of the answer."""
        body = json.dumps({"instances": instances, "parameters": parameters})
        status, answer = self._ask("POST", "/predict", body)
        return status, json.loads(answer)

    def metrics(self) -> dict[str, float]:
        """Each sample by its name and labels."""
        from prometheus_client.parser import text_string_to_metric_families

        families = text_string_to_metric_families(self._ask("GET", "/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return {" ".join((sample.name, *sample.labels.values())): sample.value for sample in samples}

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=3600)) as connection:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@contextmanager
def running(settings: Settings, variables: Mapping[str, str] | None = None) -> Iterator[Running]:
    """A server under `settings`, ready, on a free port of this machine; ended in order by SIGTERM.

    `variables` are others that Vertex AI sets, such as ``AIP_STORAGE_URI``.
    Raises `ModelError` with the end of its log when it ends by itself.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MELODIFY_", "AIP_"))}
    environment |= {"AIP_HTTP_PORT": str(port), **_variables(settings), **(variables or {})}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        process = subprocess.Popen(command("127.0.0.1", port), env=environment, stdout=log, stderr=log)  # noqa: S603
        try:
            while not _is_ready(port):
                if process.poll() is not None:
                    said = Path(folder, "log").read_text(encoding="utf-8", errors="replace")
                    raise ModelError(f"the server ended with {process.returncode}: {said[-2000:]}")
                time.sleep(0.05)
            yield Running(process, port)
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
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection, suppress(OSError):  # not listening yet
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    return False
