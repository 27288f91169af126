"""What tests of several modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from melodify_lib.flow import Composer
from melodify_lib.samples import sample_picture

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the person who runs the tests, and nothing written into the checkout."""
    import os

    for name in [name for name in os.environ if name.startswith("MELODIFY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MELODIFY_STORE", str(tmp_path / "store"))
    yield


@pytest.fixture(scope="session")
def composer() -> Composer:
    """The three stages of the local profile, loaded once."""
    return Composer()


@pytest.fixture(scope="session")
def photograph() -> Path:
    return sample_picture("coffee")


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MusicGen checkpoints of tiny shape with random weights, ``mono`` and ``stereo``."""
    from melodify_lib.music.musicgen.untrained import write_untrained

    folder = tmp_path_factory.mktemp("musicgen")
    return {name: write_untrained(folder / name, channels=count) for name, count in (("mono", 1), ("stereo", 2))}
