"""The store: where songs, cards and captions are kept. A folder here; a bucket has the same interface.

An object appears whole or not at all, under a name such as ``songs/3f2a/track.wav``.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from melodify_lib.errors import StoreError
from melodify_lib.nouns import file_sha256

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

LINK_LASTS = timedelta(hours=1)
_NAME = re.compile(r"(?!.*(?:^|/)\.)[\w.@=+-]+(?:/[\w.@=+-]+)*")


class Store(Protocol):
    """Put, get, list, delete, link; by name."""

    def put(self, name: str, data: bytes) -> str:
        """Store `data` under `name`, replacing what was there; return its address."""
        ...

    def get(self, name: str) -> bytes:
        """The bytes under `name`. Raises `StoreError` when there are none."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """All names that start with `prefix`, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Remove `name`; nothing happens when it is not there."""
        ...

    def delete_all(self, folder: str) -> None:
        """Remove all names under ``folder/``, and what a process that was killed left half-written there."""
        ...

    def address(self, name: str) -> str:
        """What `put` returns for `name`, whether or not it is there."""
        ...

    def link(self, name: str, *, download_as: str = "", lasts: timedelta = LINK_LASTS) -> str:
        """An address that a browser can open, for as long as it `lasts`. Raises `StoreError` when `name` is not there.

        The browser shows or plays it, or keeps it in a file of the name `download_as`. A folder's address is neither
        for some time nor for a purpose.
        """
        ...


def is_name(name: str) -> bool:
    """Can it be the name of an object?"""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raise `StoreError` for what cannot be the name of an object."""
    if not is_name(name):
        raise StoreError(f"object name {name!r} is not allowed: use letters, digits and _.@=+- between '/'")


def put_all(store: Store, prefix: str, files: Mapping[str, bytes]) -> None:
    """Store `files` under `prefix`, in order. The last one vouches for the others: where it is, they are whole.

    So an older one of its name goes first, and the new one comes last.
    """
    store.delete(prefix + list(files)[-1])
    for name, data in files.items():
        store.put(prefix + name, data)


def get_all(store: Store, prefix: str, digests: Mapping[str, str]) -> dict[str, bytes]:
    """The files under `prefix` that `digests` names, by their sha256. Raises `StoreError` where one is not whole."""
    files = {name: store.get(prefix + name) for name in digests}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != digests[name]:
            raise StoreError(f"{store.address(prefix + name)} is not what was stored")
    return files


def name_in(store: Store, address: str) -> str:
    """The name of what has `address` in `store`. Raises `StoreError` for an address outside of it."""
    root = store.address("x")[:-1]
    name = address.removeprefix(root)
    if not address.startswith(root):
        raise StoreError(f"{address!r} does not lie in the store {root!r}")
    check_name(name)
    return name


def open_store(settings: Settings) -> Store:
    """The store that the settings name: a folder, or a bucket (gs://…)."""
    if settings.store.startswith("gs://"):
        from melodify_lib.cloud.store import GcsStore

        return GcsStore(settings)
    return FolderStore(settings.store)


def put_folder(store: Store, folder: Path) -> str:
    """Store the files right in `folder`, a model, under ``models/`` and the hash of their content; the new address.

    What is there already is not stored again.
    """
    digests = {path: file_sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] != "."}
    if not digests:
        raise StoreError(f"there are no files in {folder}")
    content = repr([(path.name, digest) for path, digest in digests.items()])
    prefix = f"models/{hashlib.sha256(content.encode()).hexdigest()[:32]}/"
    there = set(store.list(prefix))
    for path in digests:
        if prefix + path.name not in there:
            store.put(prefix + path.name, path.read_bytes())
    return store.address(prefix + path.name).rpartition("/")[0]


class FolderStore:
    """A store in a folder: written aside, flushed to disk, then renamed."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def put(self, name: str, data: bytes) -> str:
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            try:
                with aside.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        return self.address(name)

    def get(self, name: str) -> bytes:
        path = self._path(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror or error}") from error

    def list(self, prefix: str = "") -> list[str]:
        folder = prefix.rpartition("/")[0]
        if folder and not is_name(folder):
            return []
        files = (path for path in (self.root / folder).rglob("*") if path.is_file())
        names = (path.relative_to(self.root).as_posix() for path in files)
        return sorted(name for name in names if name.startswith(prefix) and is_name(name))

    def delete(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot delete {path}: {error.strerror or error}") from error

    def delete_all(self, folder: str) -> None:
        path = self._path(folder)
        for is_last in (False, False, True):  # somebody may write there meanwhile
            try:
                shutil.rmtree(path)
                return
            except OSError as error:
                if not path.exists():
                    return
                if is_last:
                    raise StoreError(f"cannot delete {path}: {error.strerror or error}") from error

    def address(self, name: str) -> str:
        return str(self._path(name))

    def link(self, name: str, *, download_as: str = "", lasts: timedelta = LINK_LASTS) -> str:
        path = self._path(name)
        if not path.is_file():
            raise StoreError(f"nothing is stored under {name!r} in {self.root}")
        return path.resolve().as_uri()

    def _path(self, name: str) -> Path:
        check_name(name)
        return self.root / name
