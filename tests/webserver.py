"""`melodify web` as a process, with a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
from processes import Running, environment, free_port

MELODIFY = Path(sys.executable).with_name("melodify")


@dataclass
class WebServer(Running):
    """A running web application."""

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


@contextmanager
def web_server(folder: Path, *, until_ready: bool = True, **variables: object) -> Iterator[WebServer]:
    """A server with these variables of the environment; ended in order, and nothing of it is left."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    kept = {"MELODIFY_STORE": folder / "store", "WEB_FOLDER": folder / "web", "TMPDIR": folder / "tmp"}
    given = {name: str(value) for name, value in {**kept, **variables}.items()}
    (folder / "tmp").mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        command = [str(MELODIFY), "web", "--port", str(port)]
        process = subprocess.Popen(command, cwd=folder, env={**environment(), **given}, stdout=log, stderr=log)
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
