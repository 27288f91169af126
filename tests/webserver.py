"""`melodify web` as a process, with a folder of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

MELODIFY = Path(sys.executable).with_name("melodify")


@dataclass
class WebServer:
    """A running server; its standard output and error are ``log`` in its folder."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1/tracks/"

    def ready(self) -> int:
        """Status of /ready; 0 when nobody listens."""
        with suppress(requests.RequestException):
            return requests.get(f"{self.url}/ready", timeout=10).status_code
        return 0

    def order(self, image: bytes, token: str = "", **fields: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.post(self.api, fields, files={"image": ("a.png", image)}, headers=headers, timeout=60)

    def track(self, track_id: str, token: str) -> dict[str, Any]:
        answer = requests.get(f"{self.api}{track_id}/", headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert answer.status_code == 200, answer.text
        track: dict[str, Any] = answer.json()
        return track

    def tree(self) -> list[psutil.Process]:
        """This process and all that it started."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def started(self, *words: str) -> list[psutil.Process]:
        """Those whose command has these words, the oldest first."""
        found = []
        for process in self.tree()[1:]:
            with suppress(psutil.NoSuchProcess):
                if set(words) <= set(process.cmdline()):
                    found.append(process)
        return found

    def stored(self) -> list[Path]:
        return [path for path in (self.folder / "store").rglob("*") if path.is_file()]

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Each line of the log; all are JSON."""
        return [json.loads(line) for line in self.log().splitlines()]

    def wait_for(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        ends_at = time.monotonic() + seconds
        while not (met := condition()):
            assert time.monotonic() < ends_at, f"waited {seconds} s in vain; {self.log()[-4000:]}"
            time.sleep(0.05)
        return met


@contextmanager
def web_server(folder: Path, *, until_ready: bool = True, **variables: object) -> Iterator[WebServer]:
    """A server with these variables of the environment; ended in order, and nothing of it is left."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = ("MELODIFY_", "WEB_", "DJANGO_", "DATABASE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {"MELODIFY_STORE": str(folder / "store"), "WEB_FOLDER": str(folder / "web")}
    environment |= {"TMPDIR": str(folder / "tmp"), **{name: str(value) for name, value in variables.items()}}
    (folder / "tmp").mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        command = [str(MELODIFY), "web", "--port", str(port)]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    running = WebServer(process, folder, port)
    everything: set[psutil.Process] = set()
    try:
        if until_ready:
            running.wait_for(lambda: process.poll() is not None or running.ready() == 200, 120)
            assert process.poll() is None, running.log()
        yield running
        everything = set(running.tree())
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            process.wait(60)
        finally:
            _, alive = psutil.wait_procs(everything, timeout=20)
            for one in alive:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
    assert not alive, [one.pid for one in alive]
