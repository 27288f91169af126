"""The store in a bucket of Cloud Storage."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from melodify_lib.cloud import clients, retry
from melodify_lib.cloud.objects import split
from melodify_lib.errors import CloudError, SettingsError, StoreError
from melodify_lib.store import LINK_LASTS, check_name, is_name

if TYPE_CHECKING:
    from google.auth.credentials import Signing
    from google.cloud.storage import Blob

    from melodify_lib.settings import Settings

T = TypeVar("T")

WRITES_MAX = 5
"""How often an object that others delete at the same time is written anew."""
CHUNK_BYTES = 8 * 2**20
"""An upload that is longer goes in pieces of this size, and goes on after the last one that arrived."""


class GcsStore:
    """A store under a gs:// address. An object appears whole or not at all, as Cloud Storage has it.

    Its methods raise `StoreError` for what is not there, and `CloudError` when the service fails.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises `PaidError` or `SettingsError` where the settings do not allow it."""
        self._settings = settings
        bucket, self._prefix = split(settings.store)
        self._bucket = clients.storage_client(settings).bucket(bucket)

    def put(self, name: str, data: bytes) -> str:
        """As `Store.put`: of two who write one name at the same time, the last one's bytes stay, whole, as in a folder.

        `data` is written over the generation that was there at first, and over no later one: so it can be sent again
        after any failure, and never covers what somebody else wrote in the meantime.
        """
        check_name(name)
        generation = self._ask(lambda: self._generation(name))
        for _ in range(WRITES_MAX):
            if self._ask(partial(self._upload, name, data, generation)):
                return self.address(name)
            generation = 0
        raise StoreError(f"others write and delete {self.address(name)} at the same time; try again")

    def get(self, name: str) -> bytes:
        """As `Store.get`; compared with its checksum."""
        from google.api_core.exceptions import NotFound

        def download() -> bytes:
            try:
                data: bytes = self._blob(name).download_as_bytes(retry=None)
            except NotFound:
                raise StoreError(f"nothing is stored under {self.address(name)}, or there is no such bucket") from None
            return data

        return self._ask(download)

    def list(self, prefix: str = "") -> list[str]:
        def names() -> list[str]:
            blobs = self._bucket.client.list_blobs(self._bucket, prefix=self._prefix + prefix, retry=None)
            found = (blob.name.removeprefix(self._prefix) for blob in blobs)
            return sorted(name for name in found if is_name(name))

        return self._ask(names)

    def delete(self, name: str) -> None:
        from google.api_core.exceptions import NotFound

        def delete() -> None:
            with suppress(NotFound):
                self._blob(name).delete(retry=None)

        self._ask(delete)

    def delete_all(self, folder: str) -> None:
        check_name(folder)
        for name in self.list(f"{folder}/"):
            self.delete(name)

    def address(self, name: str) -> str:
        return f"gs://{self._bucket.name}/{self._blob(name).name}"

    def link(self, name: str, *, download_as: str = "", lasts: timedelta = LINK_LASTS) -> str:
        """As `Store.link`; signed.

        It is signed as `Settings.service_account`, whose key stays with IAM (signBlob), or else with the key of the
        credentials. Raises `SettingsError` where there is neither.
        """
        blob = self._blob(name)
        if not self._ask(lambda: blob.exists(retry=None)):
            raise StoreError(f"nothing is stored under {self.address(name)}")
        shown = "attachment" if download_as else "inline"
        try:
            link: str = blob.generate_signed_url(
                version="v4",
                expiration=lasts,
                api_access_endpoint=clients.storage_address(self._settings),
                response_disposition=f'{shown}; filename="{download_as or name.rpartition("/")[2]}"',
                credentials=_signing(self._settings) if self._settings.service_account else None,
            )
        except AttributeError:  # what the client says of credentials without a key
            raise SettingsError(
                "links cannot be signed: set MELODIFY_SERVICE_ACCOUNT to a service account whose tokens you may create"
            ) from None
        return link

    def _blob(self, name: str) -> Blob:
        check_name(name)
        return self._bucket.blob(self._prefix + name)

    def _generation(self, name: str) -> int:
        """Of what is there; 0 where nothing is, which is what Cloud Storage calls it in a precondition."""
        there = self._bucket.get_blob(self._blob(name).name, retry=None)
        return int(there.generation) if there is not None else 0

    def _upload(self, name: str, data: bytes, generation: int) -> bool:
        """Write over `generation`. False where somebody deleted it meanwhile: then it is to be written anew."""
        from google.api_core.exceptions import PreconditionFailed
        from google.cloud.storage.retry import DEFAULT_RETRY

        blob = self._blob(name)  # a new one: it keeps what the last answer said
        blob.chunk_size = CHUNK_BYTES  # not of a download, which is only compared with its checksum when it is whole
        try:
            blob.upload_from_string(
                data,
                content_type=mimetypes.guess_type(blob.name)[0] or "application/octet-stream",
                if_generation_match=generation,
                checksum="crc32c",
                retry=DEFAULT_RETRY if len(data) > CHUNK_BYTES else None,  # only so does it go on after a piece
            )
        except PreconditionFailed:  # our own, whose answer was lost, or that of another who came after us
            return self._generation(name) != 0
        if blob.generation is None:
            raise ValueError("no object")
        if blob.crc32c != _crc32c(data):
            blob.delete(if_generation_match=blob.generation, retry=None)
            raise CloudError(f"{self.address(name)} did not arrive whole; try again")
        return True

    def _ask(self, request: Callable[[], T]) -> T:
        return clients.ask_google(self._settings, request, service="Cloud Storage", timeout=retry.TRANSFER_S)


def _crc32c(data: bytes) -> str:
    """As Cloud Storage writes it: the base64 of its four bytes, the highest first."""
    import google_crc32c

    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def _signing(settings: Settings) -> Signing:
    """Credentials that let IAM sign, as the settings' service account."""
    from google.auth.credentials import Signing

    class IamSigning(Signing):
        @property
        def signer_email(self) -> str:
            return settings.service_account

        @property
        def signer(self) -> Any:
            return self

        def sign_bytes(self, message: bytes) -> bytes:
            return clients.ask_google(settings, lambda: _sign_blob(settings, message), service="IAM")

    return IamSigning()


def _sign_blob(settings: Settings, message: bytes) -> bytes:
    address = settings.iam_credentials_base_url or "https://iamcredentials.googleapis.com"
    payload = {"payload": base64.b64encode(message).decode()}
    answer = clients.post_iam(settings, address, "signBlob", payload)
    with clients.readable("IAM"):
        return base64.b64decode(answer["signedBlob"], validate=True)
