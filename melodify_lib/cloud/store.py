"""The store in a bucket of Cloud Storage."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from melodify_lib.cloud import clients
from melodify_lib.errors import StoreError
from melodify_lib.store import check_name

if TYPE_CHECKING:
    from google.cloud.storage import Blob

    from melodify_lib.settings import Settings


class GcsStore:
    """A store under a gs:// address, which an object joins whole or not at all."""

    def __init__(self, settings: Settings) -> None:
        """Raises `PaidError` or `SettingsError` where the settings do not allow it."""
        self._settings = settings
        bucket, _, prefix = settings.store.removeprefix("gs://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._bucket = clients.storage_client(settings).bucket(bucket)

    def put(self, name: str, data: bytes) -> str:
        blob = self._blob(name)
        with clients.google_errors(self._settings, "Cloud Storage"):
            blob.upload_from_string(data)
        return self.address(name)

    def get(self, name: str) -> bytes:
        from google.api_core.exceptions import NotFound

        blob = self._blob(name)
        with clients.google_errors(self._settings, "Cloud Storage"):
            try:
                data: bytes = blob.download_as_bytes()
            except NotFound:
                raise StoreError(f"nothing is stored under {self.address(name)}") from None
        return data

    def list(self, prefix: str = "") -> list[str]:
        with clients.google_errors(self._settings, "Cloud Storage"):
            blobs = self._bucket.client.list_blobs(self._bucket, prefix=self._prefix + prefix)
            return sorted(blob.name.removeprefix(self._prefix) for blob in blobs)

    def delete(self, name: str) -> None:
        from google.api_core.exceptions import NotFound

        with clients.google_errors(self._settings, "Cloud Storage"), suppress(NotFound):
            self._blob(name).delete()

    def address(self, name: str) -> str:
        return f"gs://{self._bucket.name}/{self._blob(name).name}"

    def link(self, name: str) -> str:
        raise NotImplementedError

    def _blob(self, name: str) -> Blob:
        check_name(name)
        return self._bucket.blob(self._prefix + name)
