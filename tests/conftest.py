"""What tests of several modules share."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from melodify_lib import logs
from melodify_lib.flow import Composer
from melodify_lib.samples import sample_picture

if TYPE_CHECKING:
    from emulators.cloud import Cloud

ROOT = Path(__file__).resolve().parent.parent


def script(name: str) -> ModuleType:
    """A program of .ci/, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the person who runs the tests, and nothing written into the checkout."""
    import os

    for name in [name for name in os.environ if name.startswith("MELODIFY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MELODIFY_STORE", str(tmp_path / "store"))
    yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    trace = logs.TRACE.set("")
    yield
    logs.TRACE.reset(trace)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def composer() -> Composer:
    """The three stages of the local profile, loaded once."""
    return Composer()


@pytest.fixture(scope="session")
def photograph() -> Path:
    return sample_picture("coffee")


@pytest.fixture(scope="module")
def servers() -> Iterator[Cloud]:
    """The whole cloud on this machine."""
    from emulators.cloud import cloud  # which imports every client there is

    with cloud() as running:
        yield running


@pytest.fixture
def gcp(servers: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The same, with the environment in which it is used."""
    monkeypatch.delenv("MELODIFY_STORE")
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    servers.vertex.log.clear()
    yield servers
    servers.vertex.fault = servers.openai.fault = servers.iam.fault = lambda request: None
    servers.iam.denied, servers.iam.granted_on_account = set(), set()


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MusicGen checkpoints of tiny shape with random weights, ``mono`` and ``stereo``."""
    from melodify_lib.music.musicgen.untrained import write_untrained

    folder = tmp_path_factory.mktemp("musicgen")
    return {name: write_untrained(folder / name, channels=count) for name, count in (("mono", 1), ("stereo", 2))}
