"""Files from a bucket to this machine."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from melodify_lib.cloud.clients import ask_google, google_errors, storage_client
from melodify_lib.errors import CloudError

if TYPE_CHECKING:
    from melodify_lib.settings import Settings


def download_folder(settings: Settings, uri: str, folder: Path, patterns: Sequence[str]) -> None:
    """Let `folder` be what lies right under a gs:// address and fits one of `patterns`; what is there already stays.

    Each file appears whole or not at all, and one that is gone from the bucket goes here too; processes that do the
    same wait for each other. Raises `CloudError`, or `PaidError` where the settings do not allow it.
    """
    from filelock import FileLock

    bucket, prefix = split(uri)
    client = storage_client(settings)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"), google_errors(settings, "Cloud Storage"):
        blobs = {}
        for blob in client.list_blobs(bucket, prefix=prefix, delimiter="/"):
            name = PurePosixPath(blob.name).name
            if any(fnmatch(name, pattern) for pattern in patterns):
                blobs[name] = blob
        if not blobs:
            raise CloudError(f"there is nothing under {uri} like {', '.join(patterns)}")
        for name, blob in blobs.items():
            path, seen, stamp = folder / name, folder / f".{name}.generation", f"{blob.generation} {blob.size}"
            if not (path.exists() and seen.exists() and seen.read_text() == stamp):
                aside = folder / f".{name}.part"
                blob.download_to_filename(str(aside))  # compares the checksum
                aside.replace(path)
                seen.write_text(stamp)
        for path in folder.iterdir():
            if path.is_file() and path.name not in blobs and any(fnmatch(path.name, pattern) for pattern in patterns):
                path.unlink()


def list_names(settings: Settings, uri: str) -> list[str]:
    """Names right under a gs:// address, page by page: all may take longer than one answer. Raises `CloudError`."""
    bucket, prefix = split(uri)
    client = storage_client(settings)
    names: list[str] = []
    token: str | None = None

    def page() -> tuple[list[str], str | None]:
        blobs = client.list_blobs(bucket, prefix=prefix, delimiter="/", page_token=token, retry=None)
        found = [blob.name.removeprefix(prefix) for blob in next(blobs.pages, ())]
        return found, blobs.next_page_token

    while True:
        found, token = ask_google(settings, page, service="Cloud Storage")
        names += found
        if token is None:
            return names


def read(settings: Settings, uri: str, most: int) -> bytes:
    """The first `most` bytes of an object. Raises `CloudError`."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")

    def download() -> bytes:
        data: bytes = storage_client(settings).bucket(bucket).blob(name).download_as_bytes(end=most - 1, retry=None)
        return data

    return ask_google(settings, download, service="Cloud Storage")


def split(uri: str) -> tuple[str, str]:
    """Bucket, and prefix with a slash at its end, of a gs:// address."""
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    return bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
