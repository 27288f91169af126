"""`melodify web`: pages and API (gunicorn), and workers, each a process; what ends by itself is started anew."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from melodify_lib.errors import SettingsError
from web.config import Config
from web.health import is_ready
from web.parent import SUPERVISOR

START_WITHIN_S = 60.0
LONGEST_PAUSE_S = 10.0
"""Before a process that keeps ending is started again."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HOSTS_HINT = 'name the addresses by which others do, such as WEB_HOSTS=\'["127.0.0.1","192.168.1.5"]\''


@dataclass
class Child:
    """A process that should run."""

    command: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    pause: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def keep(self) -> bool:
        """Start it where it does not run; True when it was started anew."""
        if self.process is not None and self.process.poll() is None:
            return False
        now = time.monotonic()
        if self.process is not None and now - self.since < self.pause:
            return False
        again = self.process is not None
        self.pause = min(max(0.25, self.pause * 2), LONGEST_PAUSE_S) if now - self.since < 30 else 0.25
        self.since = now
        # A group of its own: Ctrl-C reaches this process, which stops the others in order.
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", *self.command],
            env={**os.environ, SUPERVISOR: str(os.getpid()), **self.variables},
            start_new_session=True,
        )
        return again


def run(host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises `SettingsError` for settings or an address that cannot be used."""
    config = Config.load()
    _prepare(host, port, config)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    # glibc keeps what a large picture took, unless it is told to have all large blocks from the system, and give back.
    memory = {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    pages = Child(["gunicorn", "--config=python:web.gunicorn", f"--bind={where}"], memory)
    children = [pages, *(Child(["web", "worker"]) for _ in range(config.workers))]
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104
    address = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
    is_said, late = False, time.monotonic() + START_WITHIN_S
    try:
        while not stopping:
            for child in children:
                if child.keep():
                    say(f"{child.command[0]} ended ({child.command[-1]}) and was started anew")
            if not is_said and is_ready(reached, port):
                say(f"Melodify is at {address}")
                if host not in LOOPBACK and "hosts" not in config.model_fields_set:
                    say("Only this machine reaches it: " + HOSTS_HINT)
                is_said = True
            elif not is_said and time.monotonic() > late:
                say(f"Melodify is still starting: {address}/ready says what it waits for")
                late = math.inf
            time.sleep(0.1)
    finally:
        _stop([child.process for child in children if child.process is not None], config.grace)


def _prepare(host: str, port: int, config: Config) -> None:
    """Database and static files; and the address, which somebody else may have."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "web.settings"
    import django
    from django.core.management import call_command
    from django.db import DatabaseError

    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    config.folder.mkdir(parents=True, exist_ok=True)
    django.setup()
    try:
        if config.migrate:
            call_command("migrate", verbosity=0, interactive=False)
    except DatabaseError as error:
        raise SettingsError(f"the database cannot be used: {error}; look at DATABASE_URL") from None
    # Of the packages only what pages ask for: the API has no pages of its own.
    call_command("collectstatic", verbosity=0, interactive=False, ignore_patterns=["rest_framework"])


def _stop(processes: list[subprocess.Popen[bytes]], grace: float) -> None:
    """Ask all to end, and kill those that do not within `grace` seconds: the next start makes their songs."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    until = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
