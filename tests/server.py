"""The endpoint as a process, started by the command that the image runs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, ClassVar

import psutil
import requests
from processes import Running, environment, free_port

from serving import COMMAND

HEALTH, PREDICT = "/v1/endpoints/1/deployedModels/2", "/v1/endpoints/1/deployedModels/2:predict"


@dataclass
class Server(Running):
    """A running endpoint."""

    patience_s: ClassVar[float] = 20
    look_every_s: ClassVar[float] = 0.02

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def worker(self) -> int:
        """Process id of gunicorn's worker."""
        return psutil.Process(self.process.pid).children()[0].pid

    def health(self) -> int:
        """Status of the health route; 0 when nobody listens."""
        try:
            return requests.get(self.url + HEALTH, timeout=10).status_code
        except requests.ConnectionError:
            return 0

    def post(self, body: Any, **headers: str) -> requests.Response:
        """`body` is bytes, or is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return requests.post(
            self.url + PREDICT, data, headers={"Content-Type": "application/json", **headers}, timeout=60
        )

    def predict(self, *instances: dict[str, Any], **parameters: Any) -> list[dict[str, Any]]:
        answer = self.post({"instances": instances, "parameters": parameters})
        assert answer.status_code == 200, answer.text
        predictions: list[dict[str, Any]] = answer.json()["predictions"]
        return predictions

    def open(self, body: Any) -> socket.socket:
        """A request that is sent and not waited for."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        data = json.dumps(body).encode()
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        return connection

    def figure(self, name: str) -> float:
        """A sample of the metrics by its name and labels."""
        for line in requests.get(f"{self.url}/metrics", timeout=10).text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0


@contextmanager
def server(
    folder: Path, command: Sequence[str] = COMMAND, *, ready: bool = True, **settings: object
) -> Iterator[Server]:
    """A server under Vertex AI's variables, with MELODIFY_* `settings`; its standard output and error are ``log``."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    variables = {**environment(), "AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": HEALTH, "AIP_PREDICT_ROUTE": PREDICT}
    variables |= {"AIP_STORAGE_URI": str(settings.pop("storage_uri", "")), "MELODIFY_STORE": str(folder / "store")}
    variables |= {f"MELODIFY_{name.upper()}": str(value) for name, value in settings.items()}
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(list(command), cwd=folder, env=variables, stdout=log, stderr=log)
    running = Server(process, folder, port)
    try:
        if ready:
            running.wait_for(lambda: running.health() == 200)
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of what comes back."""
    with connection, closing(HTTPResponse(connection)) as response:
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, json.load(response)
