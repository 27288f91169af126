"""Files from a bucket to this machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from melodify_lib.cloud.clients import google_errors, storage_client
from melodify_lib.errors import CloudError

if TYPE_CHECKING:
    from melodify_lib.settings import Settings


def download_folder(settings: Settings, uri: str, folder: Path) -> None:
    """Bring the objects right under a gs:// address into `folder`; those that are there with the same hash stay.

    Each file appears whole or not at all. Raises `CloudError`, or `PaidError` where the settings do not allow it.
    """
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
    client = storage_client(settings)
    folder.mkdir(parents=True, exist_ok=True)
    with google_errors(settings, "Cloud Storage"):
        blobs = [blob for blob in client.list_blobs(bucket, prefix=prefix, delimiter="/") if blob.name != prefix]
        if not blobs:
            raise CloudError(f"there is nothing under {uri}: expected config.json, tokenizer.json and *.safetensors")
        for blob in blobs:
            path = folder / PurePosixPath(blob.name).name
            seen = path.with_name(f".{path.name}.generation")
            if path.exists() and seen.exists() and seen.read_text() == f"{blob.generation} {blob.size}":
                continue
            aside = path.with_name(f".{path.name}.part")
            blob.download_to_filename(str(aside))  # checks the checksum
            aside.replace(path)
            seen.write_text(f"{blob.generation} {blob.size}")
