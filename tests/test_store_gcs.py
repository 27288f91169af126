"""The store in a bucket, with the real client against a server on this machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
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
from melodify_lib.cloud.objects import list_names
from melodify_lib.cloud.store import GcsStore
from melodify_lib.errors import CloudError, PaidError, SettingsError, StoreError
from melodify_lib.settings import Settings
from melodify_lib.store import FolderStore, Store, open_store, put_all

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


def test_an_upload_whose_answer_was_lost_is_found_again(proxy: Proxy) -> None:
    proxy.faults = [lambda method, path: "lose the answer" if method == "POST" else None]
    store = GcsStore(settings(proxy.url))
    store.put("a", b"first")
    assert store.get("a") == b"first" and proxy.hit == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"status": 429, "retry_after": "0"},
        {"status": 408},
        "reset",
        "lose the answer",
        "cut the answer",
        "damage the answer",
        "not JSON",
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["put", "get", "list", "delete", "link"])
def test_a_fault_that_passes_is_outlived(proxy: Proxy, bucket: str, fault: Any, call: str) -> None:
    with IamEmulator(TOKEN, ACCOUNT) as iam:
        more = {"store": f"gs://{gcs.BUCKET}/passing", "iam_base_url": iam.url, "service_account": ACCOUNT}
        whole = GcsStore(settings(bucket, **more))
        whole.put("a", b"x" * 1000)
        proxy.faults = [lambda *_: fault]
        got = _call(GcsStore(settings(proxy.url, **more)), call)
        assert proxy.hit == 1
        assert got == {"get": b"x" * 1000, "list": ["a"]}.get(call, got)
        if call != "delete":
            assert whole.get("a") == (b"y" if call == "put" else b"x" * 1000)


@pytest.mark.parametrize("call", ["put", "get", "list", "delete", "link"])
@pytest.mark.parametrize(
    ("status", "says"),
    [(401, "credentials"), (403, "permissions"), (429, "429"), (503, "503")],
)
def test_a_fault_that_stays_is_named(
    proxy: Proxy, bucket: str, call: str, status: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.1)
    GcsStore(settings(bucket, store=f"gs://{gcs.BUCKET}/staying")).put("a", b"x")
    proxy.faults = [lambda *_: {"status": status, "body": f"no, {TOKEN}"}] * 1000
    with pytest.raises(CloudError, match=says) as caught:
        _call(GcsStore(settings(proxy.url, store=f"gs://{gcs.BUCKET}/staying")), call)
    assert caught.value.status == status and TOKEN not in repr(caught.value)
    assert (proxy.hit <= 2) == (status < 429)  # the client looks for fresh credentials once
    assert GcsStore(settings(bucket, store=f"gs://{gcs.BUCKET}/staying")).get("a") == b"x"


def test_a_service_that_sends_a_byte_at_a_time_is_given_up(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melodify_lib.cloud.store.TRANSFER_S", 0.3)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.1)
    proxy.faults = [lambda *_: "trickle"] * 10
    with pytest.raises(CloudError, match="no whole answer"):
        GcsStore(settings(proxy.url)).list()


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(CloudError, match="404"):
        GcsStore(settings(bucket, store="gs://nobodys")).put("a", b"")


def test_a_large_upload_goes_on_after_the_connection_broke(proxy: Proxy, bucket: str) -> None:
    data = bytes(range(256)) * (20 * 2**12)  # 20 MiB: three pieces
    proxy.faults = [lambda method, path: "reset" if method == "PUT" else None]
    GcsStore(settings(proxy.url)).put("large", data)
    assert proxy.hit == 1
    assert GcsStore(settings(proxy.url)).get("large") == data


def test_half_an_upload_is_nothing(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEADLINE_S", 0.1)
    proxy.faults = [lambda method, path: "cut the request" if method == "POST" else None] * 100
    store = GcsStore(settings(proxy.url, store=f"gs://{gcs.BUCKET}/half"))
    with pytest.raises(CloudError):
        put_all(store, "song/", {"track.wav": b"x" * 1_000_000, "card.json": b"{}"})
    proxy.faults = []
    assert store.list() == []


def test_a_link_is_signed_by_iam_and_opens(bucket: str) -> None:
    with IamEmulator(TOKEN, ACCOUNT) as iam:
        store = GcsStore(settings(bucket, iam_base_url=iam.url, service_account=ACCOUNT))
        store.put("songs/1/track.wav", b"RIFF")
        link = store.link("songs/1/track.wav")
        answer = requests.get(link, timeout=10)
        assert (answer.status_code, answer.content) == (200, b"RIFF")
        assert TOKEN not in link
        signature, payload = _canonical(link)
        iam.verify(signature, payload)
        with pytest.raises(CloudError, match="permissions"):
            GcsStore(settings(bucket, iam_base_url=iam.url, service_account="other@x.y")).link("songs/1/track.wav")


def test_a_link_needs_a_key(bucket: str) -> None:
    store = GcsStore(settings(bucket))
    store.put("a", b"")
    with pytest.raises(SettingsError, match="MELODIFY_SERVICE_ACCOUNT"):
        store.link("a")


def test_objects_say_what_they_are(bucket: str) -> None:
    GcsStore(settings(bucket, store=f"gs://{gcs.BUCKET}/types")).put("track.wav", b"RIFF")
    with closing(gcs.client(bucket)) as storage:
        assert storage.bucket(gcs.BUCKET).get_blob("types/track.wav").content_type.endswith("wav")


def _call(store: GcsStore, call: str) -> Any:
    arguments: dict[str, list[Any]] = {"put": ["a", b"y"], "list": []}
    return getattr(store, call)(*arguments.get(call, ["a"]))


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
