"""The same promises with Postgres, whose writers do not queue up as SQLite's do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import free_port

ROOT = Path(__file__).resolve().parent.parent
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # Debian has them beside the path


def _found(name: str) -> str:
    path = shutil.which(name) or next((str(one / name) for one in reversed(BINARIES) if (one / name).exists()), "")
    if not path:
        pytest.skip(f"{name} is not installed (Debian: apt install postgresql)")
    return path


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database, on a server of its own."""
    initdb, postgres = _found("initdb"), _found("postgres")
    with tempfile.TemporaryDirectory(prefix="melodify-postgres-") as name:  # pytest's folders are its user's alone
        folder, user = Path(name), None
        if os.getuid() == 0:  # as whom it refuses to run
            user = "nobody"
            shutil.chown(folder, user)
        with _server(folder, user, initdb, postgres) as address:
            yield address


@contextmanager
def _server(folder: Path, user: str | None, initdb: str, postgres: str) -> Iterator[str]:
    port = free_port()
    data = folder / "data"
    made = subprocess.run(
        [initdb, "-D", data, "-U", "melodify", "-A", "trust", "-E", "UTF8", "--no-sync"],
        user=user, cwd=folder, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [postgres, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"],
            user=user, cwd=folder, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    try:
        address = f"postgres://melodify@127.0.0.1:{port}/postgres"
        ends_at = time.monotonic() + 30
        while not _answers(address):
            assert time.monotonic() < ends_at and server.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def _answers(address: str) -> bool:
    import psycopg

    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:
        return False
    return True


def test_jobs_keep_their_promises_with_postgres(database: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_web_jobs.py"]
    variables = {**os.environ, "TEST_DATABASE_URL": database}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]
