"""A stage's version changes with its code and its tables, or a cache would hand out what is no longer made."""

import shutil
from pathlib import Path

import pytest

from melodify_lib import fingerprint as module
from melodify_lib.fingerprint import fingerprint


@pytest.mark.parametrize("name", ["styles/rock.yaml", "melody.py"])
def test_a_changed_file_changes_the_fingerprint(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint("music/arranger")
    copy = tmp_path / "library"
    shutil.copytree(Path(module.__file__).parent, copy)
    monkeypatch.setattr(module, "_LIBRARY", copy)
    fingerprint.cache_clear()
    assert fingerprint("music/arranger") == before
    with (copy / "music" / "arranger" / name).open("a") as file:
        file.write("\n# another\n")
    fingerprint.cache_clear()
    assert fingerprint("music/arranger") != before
    fingerprint.cache_clear()
