"""The store: whole or not at all, and nothing outside its folder."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melodify_lib.errors import StoreError
from melodify_lib.store import FolderStore


def test_put_get_list_delete(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("songs/a/track.wav", b"one")
    store.put("songs/b/track.wav", b"two")
    store.put("songs/a/track.wav", b"three")
    assert store.get("songs/a/track.wav") == b"three"
    assert store.list("songs/a") == ["songs/a/track.wav"]
    assert store.link("songs/a/track.wav").startswith("file:///")
    store.delete("songs/a/track.wav")
    store.delete("songs/a/track.wav")
    assert store.list() == ["songs/b/track.wav"]
    with pytest.raises(StoreError, match="cannot read"):
        store.get("songs/a/track.wav")


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../x", "a//b", ".hidden", "a/.b", "a\\b", "a\nb", "a/", "~"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="not allowed"):
        FolderStore(tmp_path).put(name, b"")


@given(name=st.text(min_size=1, max_size=30))
def test_no_name_reaches_outside(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("store")
    try:
        path = Path(FolderStore(root / "inside").put(name, b"x")).resolve()
    except StoreError:
        assert not any(root.rglob("*.*"))
    else:
        assert path.is_relative_to((root / "inside").resolve())


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    store.put("a", b"old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put("a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert store.get("a") == b"old"
