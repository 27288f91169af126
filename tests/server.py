"""The endpoint as a process, started by the command that the image runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import psutil
import requests

from serving import COMMAND

HEALTH, PREDICT = "/v1/endpoints/1/deployedModels/2", "/v1/endpoints/1/deployedModels/2:predict"


@dataclass
class Server:
    """A running server and the folder that it works in."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

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

    def log(self) -> list[dict[str, Any]]:
        """Each line of the log; all are JSON."""
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        ends_at = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends_at, f"waited {seconds} s in vain; {(self.folder / 'log').read_text()}"
            time.sleep(0.02)


@contextmanager
def server(
    folder: Path, command: Sequence[str] = COMMAND, *, ready: bool = True, **settings: object
) -> Iterator[Server]:
    """A server under Vertex AI's variables, with MELODIFY_* `settings`; its standard output and error are ``log``."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MELODIFY_", "AIP_"))}
    environment |= {"AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": HEALTH, "AIP_PREDICT_ROUTE": PREDICT}
    environment |= {"AIP_STORAGE_URI": str(settings.pop("storage_uri", "")), "MELODIFY_STORE": str(folder / "store")}
    environment |= {f"MELODIFY_{name.upper()}": str(value) for name, value in settings.items()}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(list(command), cwd=folder, env=environment, stdout=log, stderr=log)
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
