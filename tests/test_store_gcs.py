"""The store in a bucket, with the real client against a server on this machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
import requests
from google.cloud import storage
from google.cloud.storage._http import Connection

from emulators import gcs
from emulators.iam import IamEmulator
from emulators.proxy import Proxy
from melodify_lib.cloud import retry
from melodify_lib.cloud.objects import download_folder, list_names, read
from melodify_lib.cloud.store import GcsStore
from melodify_lib.errors import CloudError, PaidError, SettingsError, StoreError
from melodify_lib.settings import Settings
from melodify_lib.store import FolderStore, Store, open_store

TOKEN = "ya29.emulated-0123456789abcdefghij"
ACCOUNT = "songs@melodify.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with gcs.gcs() as url:
        yield url


def settings(url: str, **more: Any) -> Settings:
    fields = {
        "allow_paid": True,
        "project": "melodify",
        "store": f"gs://{gcs.BUCKET}/{hashlib.sha256(url.encode()).hexdigest()[:8]}",
        "access_token": TOKEN,
        "gcs_base_url": url,
    }
    return Settings(**{**fields, **more})


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return FolderStore(tmp_path)
    return open_store(settings(request.getfixturevalue("bucket"), store=f"gs://{gcs.BUCKET}/{tmp_path.name}"))


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    with Proxy(bucket) as one:
        yield one


def test_what_is_put_can_be_got_listed_and_deleted(store: Store) -> None:
    address = store.put("songs/1/track.wav", b"RIFF")
    assert address == store.address("songs/1/track.wav")
    store.put("songs/1/track.wav", b"RIFF again")
    store.put("songs/2/card.json", b"{}")
    assert store.get("songs/1/track.wav") == b"RIFF again"
    assert store.list("songs/1/") == ["songs/1/track.wav"]
    assert store.list() == ["songs/1/track.wav", "songs/2/card.json"]
    store.delete("songs/1/track.wav")
    store.delete("songs/1/track.wav")
    assert store.list() == ["songs/2/card.json"]


def test_what_is_not_there_is_an_error_that_names_it(store: Store) -> None:
    for ask in (store.get, store.link):
        with pytest.raises(StoreError, match=r"songs/9/card\.json"):
            ask("songs/9/card.json")


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", ".hidden", "a/.b", "", "a b"])
def test_no_name_leaves_the_store(store: Store, name: str) -> None:
    for ask in (store.get, store.delete, store.address, lambda name: store.put(name, b"")):
        with pytest.raises(StoreError, match="not allowed"):
            ask(name)


def test_a_bucket_is_opened_only_where_the_settings_allow_it(bucket: str) -> None:
    with pytest.raises(PaidError):
        open_store(settings(bucket, allow_paid=False))


def test_two_writers_of_one_name_leave_one_of_their_objects_whole(bucket: str) -> None:
    texts = [bytes([65 + number]) * 100_000 for number in range(4)]
    writers = [threading.Thread(target=GcsStore(settings(bucket)).put, args=("both", text)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert GcsStore(settings(bucket)).get("both") in texts


def test_what_another_wrote_meanwhile_came_later_and_stays(proxy: Proxy, bucket: str) -> None:
    """Whether ours was refused, or had arrived before and only its answer was lost."""
    store, other = (GcsStore(settings(url, store=f"gs://{gcs.BUCKET}/later")) for url in (proxy.url, bucket))

    def write_first(method: str, path: str) -> None:
        if method == "POST" and "theirs" in writes:
            other.put("a", writes.pop().encode())

    writes = ["theirs"]
    proxy.faults = [write_first]
    assert store.put("a", b"ours") == other.address("a")
    assert other.get("a") == b"theirs" and not writes
    writes = ["theirs"]
    proxy.faults = [lambda method, path: "lose the answer" if method == "POST" else None, write_first]
    store.put("a", b"ours")
    assert other.get("a") == b"theirs" and not writes and proxy.hit == 1


def test_what_another_deleted_meanwhile_is_written_anew(proxy: Proxy, bucket: str) -> None:
    store, other = (GcsStore(settings(url, store=f"gs://{gcs.BUCKET}/anew")) for url in (proxy.url, bucket))
    other.put("a", b"old")

    def delete_first(method: str, path: str) -> None:
        if method == "POST" and deletions:
            other.delete(deletions.pop())

    deletions = ["a"]
    proxy.faults = [delete_first]
    store.put("a", b"ours")
    assert other.get("a") == b"ours" and not deletions


def test_a_client_killed_in_the_middle_of_an_upload_leaves_nothing(proxy: Proxy, bucket: str) -> None:
    arrived, killed = threading.Event(), threading.Event()
    pieces = []

    def hold_the_second_piece(method: str, path: str) -> threading.Event | None:
        pieces.extend([path] if method == "PUT" else [])
        if len(pieces) < 2:
            return None
        arrived.set()
        return killed

    proxy.faults = [hold_the_second_piece]
    one = settings(proxy.url, store=f"gs://{gcs.BUCKET}/killed")
    code = (
        "from melodify_lib import Settings; from melodify_lib.store import open_store\n"
        f"open_store(Settings.load(store={one.store!r}, gcs_base_url={proxy.url!r}, access_token={TOKEN!r},"
        " allow_paid=True, project='melodify')).put('large', b'x' * 20 * 2**20)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    assert arrived.wait(60) and process.poll() is None
    process.kill()
    process.wait()
    killed.set()
    store = GcsStore(one)
    assert store.list() == []
    store.put("large", b"y" * 20 * 2**20)
    assert store.list() == ["large"] and store.get("large") == b"y" * 20 * 2**20


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(CloudError, match="404"):
        GcsStore(settings(bucket, store="gs://nobodys")).put("a", b"")


def test_a_large_upload_goes_on_after_the_connection_broke(proxy: Proxy, bucket: str) -> None:
    data = bytes(range(256)) * (20 * 2**12)  # 20 MiB: three pieces
    proxy.faults = [lambda method, path: "reset" if method == "PUT" else None]
    GcsStore(settings(proxy.url)).put("large", data)
    assert proxy.hit == 1
    assert GcsStore(settings(proxy.url)).get("large") == data


def test_a_link_is_signed_by_iam_and_opens(bucket: str) -> None:
    with IamEmulator(TOKEN, ACCOUNT) as iam:
        store = GcsStore(settings(bucket, iam_credentials_base_url=iam.url, service_account=ACCOUNT))
        store.put("songs/1/track.wav", b"RIFF")
        link = store.link("songs/1/track.wav")
        answer = requests.get(link, timeout=10)
        assert (answer.status_code, answer.content) == (200, b"RIFF")
        assert TOKEN not in link
        signature, payload = _canonical(link)
        iam.verify(signature, payload)
        query = parse_qs(urlsplit(link).query)
        assert query["response-content-disposition"] == ['inline; filename="track.wav"']
        assert query["X-Goog-Expires"] == ["3600"]
        link = store.link("songs/1/track.wav", download_as="my song.wav", lasts=timedelta(minutes=2))
        iam.verify(*_canonical(link))
        query = parse_qs(urlsplit(link).query)
        assert query["response-content-disposition"] == ['attachment; filename="my song.wav"']
        assert query["X-Goog-Expires"] == ["120"]
        with pytest.raises(CloudError, match="permissions"):
            more = {"iam_credentials_base_url": iam.url, "service_account": "other@x.y"}
            GcsStore(settings(bucket, **more)).link("songs/1/track.wav")


def test_a_link_needs_a_key(bucket: str) -> None:
    store = GcsStore(settings(bucket))
    store.put("a", b"")
    with pytest.raises(SettingsError, match="MELODIFY_SERVICE_ACCOUNT"):
        store.link("a")


def test_objects_say_what_they_are(bucket: str) -> None:
    GcsStore(settings(bucket, store=f"gs://{gcs.BUCKET}/types")).put("track.wav", b"RIFF")
    with closing(gcs.client(bucket)) as storage:
        assert storage.bucket(gcs.BUCKET).get_blob("types/track.wav").content_type.endswith("wav")


def _canonical(link: str) -> tuple[bytes, bytes]:
    """Signature of a V4 link, and what must have been signed, put together anew from the link itself.

    Source: Cloud Storage, "V4 signing process", canonical requests.
    """
    address = urlsplit(link)
    query = {name: values[0] for name, values in parse_qs(address.query).items()}
    signature = bytes.fromhex(query.pop("X-Goog-Signature"))
    scope = query["X-Goog-Credential"].split("/", 1)[1]
    request = [
        "GET",
        address.path,
        urlencode(sorted(query.items()), quote_via=quote, safe="-_.~"),
        f"host:{address.netloc}",
        "",
        "host",
        "UNSIGNED-PAYLOAD",
    ]
    digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
    return signature, "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, digest]).encode()


@pytest.mark.parametrize("size", [1000, 9 * 2**20])
def test_an_upload_that_is_damaged_on_its_way_is_sent_again(proxy: Proxy, bucket: str, size: int) -> None:
    data_goes_by = "POST" if size < 2000 else "PUT"
    proxy.faults = [lambda method, path: "damage the request" if method == data_goes_by else None]
    GcsStore(settings(proxy.url)).put("whole", b"x" * size)
    assert proxy.hit == 1 and GcsStore(settings(bucket, store=settings(proxy.url).store)).get("whole") == b"x" * size


def test_the_address_of_an_upload_is_a_secret(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.1)
    proxy.faults = [lambda method, path: {"status": 403} if method == "PUT" else None] * 100
    with pytest.raises(CloudError) as caught:
        GcsStore(settings(proxy.url)).put("secret", b"x" * (9 * 2**20))
    assert "upload_id=" not in str(caught.value)


def test_hostile_names_are_not_listed(bucket: str) -> None:
    with closing(gcs.client(bucket)) as storage:
        for name in ("../evil", ".hidden", "a b", "fine"):
            storage.bucket(gcs.BUCKET).blob(f"hostile/{name}").upload_from_string(b"")
    assert GcsStore(settings(bucket, store=f"gs://{gcs.BUCKET}/hostile")).list() == ["fine"]


def test_a_long_listing_has_a_limit_for_each_page_and_not_for_all(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = settings(bucket, store=f"gs://{gcs.BUCKET}/{tmp_path.name}")
    for name in "abcd":
        open_store(here).put(name, b"1")
    listed, asked = storage.Client.list_blobs, Connection.api_request

    def slow(self: Connection, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return asked(self, *arguments, **options)

    monkeypatch.setattr(storage.Client, "list_blobs", lambda *one, **more: listed(*one, **more, page_size=1))
    monkeypatch.setattr(Connection, "api_request", slow)
    monkeypatch.setattr(retry, "TIMEOUT_S", 0.8)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.1)
    assert list_names(here, here.store) == list("abcd")


def _model(bucket: str, name: str) -> str:
    store = GcsStore(settings(bucket, store=f"gs://{gcs.BUCKET}/{name}"))
    for file, data in (("config.json", b"{}"), ("model.safetensors", b"x" * 1000), ("deeper/config.json", b"no")):
        store.put(file, data)
    return store.address("config.json").removesuffix("config.json")


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def test_a_folder_is_fetched_once_and_follows_the_bucket(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    address = _model(bucket, "follows")
    there, fetched = GcsStore(settings(bucket, store=address)), []
    proxy.faults = [lambda method, path: fetched.append(path) if "/download/" in path else None]  # type: ignore[func-returns-value]
    for _ in range(2):
        download_folder(settings(proxy.url), address, tmp_path, ["*"])
    assert _files(tmp_path) == {"config.json": b"{}", "model.safetensors": b"x" * 1000} and len(fetched) == 2
    there.put("config.json", b"{ }")
    there.delete("model.safetensors")
    download_folder(settings(proxy.url), address, tmp_path, ["*"])
    assert _files(tmp_path) == {"config.json": b"{ }"} and len(fetched) == 3
    with pytest.raises(CloudError, match=r"nothing under .* like \*\.bin"):
        download_folder(settings(proxy.url), address, tmp_path, ["*.bin"])


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"status": 429, "retry_after": "0"}, "reset", "cut the answer", "damage the answer"],
    ids=str,
)
@pytest.mark.parametrize("what", ["list", "file"])
def test_a_folder_comes_whole_through_a_fault(proxy: Proxy, bucket: str, tmp_path: Path, what: str, fault: Any) -> None:
    address = _model(bucket, "whole")
    proxy.faults = [lambda method, path: fault if ("safetensors" in path) == (what == "file") else None]
    download_folder(settings(proxy.url), address, tmp_path, ["*.json", "*.safetensors"])
    assert _files(tmp_path) == {"config.json": b"{}", "model.safetensors": b"x" * 1000} and proxy.hit == 1
    assert not list(tmp_path.glob(".*.part"))


def test_a_file_that_comes_a_byte_at_a_time_is_given_up(
    proxy: Proxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = _model(bucket, "slow")
    monkeypatch.setattr(retry, "TRANSFER_S", 0.3)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.1)
    for get in (
        lambda: download_folder(settings(proxy.url), address, tmp_path, ["*.safetensors"]),
        lambda: read(settings(proxy.url), f"{address}model.safetensors", 100),
    ):
        proxy.faults = [lambda method, path: "trickle" if "safetensors" in path else None] * 10
        with pytest.raises(CloudError, match=r"no whole answer came in 0\.3 s"):
            get()
    assert _files(tmp_path) == {}
