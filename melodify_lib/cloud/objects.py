"""Files from a bucket to this machine."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from melodify_lib.cloud.clients import google_errors, storage_client
from melodify_lib.errors import CloudError

if TYPE_CHECKING:
    from melodify_lib.settings import Settings


def download_folder(settings: Settings, uri: str, folder: Path, patterns: Sequence[str]) -> None:
    """Let `folder` be what lies right under a gs:// address and fits one of `patterns`; what is there already stays.

    Each file appears whole or not at all, and one that is gone from the bucket goes here too; processes that do the
    same wait for each other. Raises `CloudError`, or `PaidError` where the settings do not allow it.
    """
    from filelock import FileLock

    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
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
