"""Files from a bucket to this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from melodify_lib.cloud import retry
from melodify_lib.cloud.clients import ask_google, storage_client
from melodify_lib.errors import CloudError

if TYPE_CHECKING:
    from google.cloud.storage import Blob

    from melodify_lib.settings import Settings


def download_folder(settings: Settings, uri: str, folder: Path, patterns: Sequence[str]) -> None:
    """Let `folder` be what lies right under a gs:// address and fits one of `patterns`; what is there already stays.

    Each file appears whole or not at all, and one that is gone from the bucket goes here too; processes that do the
    same wait for each other. Raises `CloudError`, or `PaidError` where the settings do not allow it.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        blobs = {name: blob for name, blob in _blobs(settings, uri) if _fits(name, patterns)}
        if not blobs:
            raise CloudError(f"there is nothing under {uri} like {', '.join(patterns)}")
        for name, blob in blobs.items():
            path, seen, stamp = folder / name, folder / f".{name}.generation", f"{blob.generation} {blob.size}"
            if not (path.exists() and seen.exists() and seen.read_text() == stamp):
                ask_google(settings, partial(_download, blob, path), service="Cloud Storage", timeout=retry.TRANSFER_S)
                seen.write_text(stamp)
        for path in folder.iterdir():
            if path.is_file() and path.name not in blobs and _fits(path.name, patterns):
                path.unlink()


def list_names(settings: Settings, uri: str) -> list[str]:
    """Names right under a gs:// address. Raises `CloudError`."""
    return [name for name, _ in _blobs(settings, uri)]


def read(settings: Settings, uri: str, most: int) -> bytes:
    """The first `most` bytes of an object. Raises `CloudError`."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")

    def download() -> bytes:
        data: bytes = storage_client(settings).bucket(bucket).blob(name).download_as_bytes(end=most - 1, retry=None)
        return data

    return ask_google(settings, download, service="Cloud Storage", timeout=retry.TRANSFER_S)


def _blobs(settings: Settings, uri: str) -> Iterator[tuple[str, Blob]]:
    """Names and objects right under a gs:// address; page by page, as all may take longer than one answer."""
    bucket, prefix = split(uri)
    client = storage_client(settings)
    token: str | None = None

    def page() -> tuple[list[Blob], str | None]:
        blobs = client.list_blobs(bucket, prefix=prefix, delimiter="/", page_token=token, retry=None)
        return list(next(blobs.pages, ())), blobs.next_page_token

    while True:
        blobs, token = ask_google(settings, page, service="Cloud Storage")
        yield from ((name, blob) for blob in blobs if (name := blob.name.removeprefix(prefix)))
        if token is None:
            return


def _download(blob: Blob, path: Path) -> None:
    """Let `path` be what `blob` is, whole; compared with its checksum."""
    there = blob.bucket.blob(blob.name, generation=blob.generation)  # what was listed names an address of its own
    aside = path.with_name(f".{path.name}.{token_hex(4)}.part")  # one that was given up may still write into its own
    try:
        there.download_to_filename(str(aside), retry=None)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return name[0] != "." and any(fnmatch(name, pattern) for pattern in patterns)


def split(uri: str) -> tuple[str, str]:
    """Bucket, and prefix with a slash at its end, of a gs:// address."""
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    return bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
