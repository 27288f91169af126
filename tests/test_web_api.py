"""The API and the pages' addresses: whose a track is, what an error looks like, ranges, limits."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any
from unittest import mock

import pytest
import webapp
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import OperationalError
from django.http import HttpResponse
from django.test import Client
from jsonschema import Draft202012Validator
from PIL import Image
from rest_framework.exceptions import ParseError, Throttled

from melodify_lib.errors import DescriptionError, ImageError, InputError, StoreError
from melodify_lib.flow import Composer
from melodify_lib.nouns import Track as Song
from web.tracks import files, jobs, work
from web.tracks.jobs import ConflictError, GoneError, Options, QueueFullError
from web.tracks.models import Stage, State, Track
from web.tracks.visitors import Visitor

pytestmark = pytest.mark.django_db
API = "/api/v1/tracks/"
PROBLEM = Draft202012Validator(
    {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference", "minLength": 1},
            "title": {"type": "string", "minLength": 1},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "minLength": 1},
            "errors": {"type": ["object", "array"]},
        },
        "additionalProperties": False,
    }
)


@pytest.fixture(autouse=True)
def _no_request_was_counted() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def client() -> Client:
    """Of a program: no cookie, and as strict as a browser's."""
    return Client(enforce_csrf_checks=True, raise_request_exception=False)


@pytest.fixture(scope="module")
def song(composer: Composer) -> Song:
    return composer.compose(webapp.picture(), seconds=4)


@pytest.fixture
def done(song: Song) -> tuple[Track, dict[str, str]]:
    """A track that is made, and its owner's header."""
    visitor = Visitor.new()
    queued, _ = jobs.create(visitor.owner, Options(4, 7, "", "arranger"), picture=Image.new("RGB", (32, 32), "red"))
    track = jobs.claim(queued.id)
    assert track is not None
    description = song.card.description.model_dump(mode="json")
    jobs.progress(track, Stage.STORE, 90, caption={"text": "red"}, description=description)
    work._store(track, song.files, song.card)
    track.refresh_from_db()
    assert track.state == State.DONE
    return track, bearer(visitor)


def bearer(visitor: Visitor) -> dict[str, str]:
    return {"Authorization": f"Bearer {visitor.key}"}


def upload(client: Client, *, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    image = fields.pop("image", None) or SimpleUploadedFile("a.png", webapp.picture(), "image/png")
    return client.post(API, {"image": image, "seconds": 4, **fields}, headers=headers)


def problem(response: HttpResponse, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content[:500]
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(response.content)
    PROBLEM.validate(body)
    assert body["status"] == status
    return body


# --- whose it is -----------------------------------------------------------------------------------------------------


def test_the_first_track_comes_with_the_token_that_all_else_needs(client: Client) -> None:
    first = upload(client)
    assert first.status_code == 202
    track, token = first.json()["track"], first.json()["token"]
    assert first["Location"].endswith(f"{API}{track['id']}/")
    assert client.get(f"{API}{track['id']}/").status_code == 401
    mine = {"Authorization": f"Bearer {token}"}
    assert client.get(first["Location"], headers=mine).json() == track
    second = upload(client, headers=mine)
    assert second.status_code == 202 and "token" not in second.json()
    listed = client.get(API, headers=mine).json()["results"]
    assert [one["id"] for one in listed] == [second.json()["track"]["id"], track["id"]]


API_ROUTES = [
    ("get", "/api/v1/tracks/{id}/"),
    ("delete", "/api/v1/tracks/{id}/"),
    ("post", "/api/v1/tracks/{id}/cancel/"),
    ("post", "/api/v1/tracks/{id}/remix/"),
    ("post", "/api/v1/tracks/{id}/retry/"),
    ("post", "/api/v1/tracks/{id}/share/"),
    ("delete", "/api/v1/tracks/{id}/share/"),
    ("get", "/api/v1/tracks/{id}/files/track.wav"),
]
PAGES = [
    ("get", "/tracks/{id}/"),
    ("get", "/tracks/{id}/progress/"),
    ("post", "/tracks/{id}/cancel/"),
    ("post", "/tracks/{id}/delete/"),
    ("post", "/tracks/{id}/share/"),
    ("post", "/tracks/{id}/unshare/"),
    ("post", "/tracks/{id}/remix/"),
    ("post", "/tracks/{id}/retry/"),
    ("get", "/tracks/{id}/files/track.wav"),
]


@pytest.mark.parametrize(("method", "path"), API_ROUTES)
def test_a_strangers_token_or_cookie_finds_nothing(
    method: str, path: str, client: Client, done: tuple[Track, dict[str, str]]
) -> None:
    track, _ = done
    before = Track.objects.values().get(id=track.id)
    address = path.format(id=track.id)
    problem(getattr(client, method)(address), 401)
    problem(getattr(client, method)(address, headers=bearer(Visitor.new())), 404)
    browser = begun(Client())
    problem(getattr(browser, method)(address), 404)
    assert Track.objects.values().get(id=track.id) == before


@pytest.mark.parametrize(("method", "path"), PAGES)
@pytest.mark.parametrize("has_cookie", [False, True])
def test_a_strangers_pages_are_not_there(
    method: str, path: str, has_cookie: bool, done: tuple[Track, dict[str, str]]
) -> None:
    track, _ = done
    before = Track.objects.values().get(id=track.id)
    browser = begun(Client()) if has_cookie else Client()
    assert getattr(browser, method)(path.format(id=track.id)).status_code == 404
    assert Track.objects.values().get(id=track.id) == before


def begun(browser: Client) -> Client:
    """A browser with the cookie of a visitor who has a track, which it got from the page."""
    image = SimpleUploadedFile("a.png", webapp.picture(), "image/png")
    answer = browser.post("/", {"image": image, "seconds": 4})
    assert answer.status_code == 302, answer.content
    assert browser.cookies["sessionid"]["httponly"] and browser.cookies["sessionid"]["samesite"] == "Lax"
    return browser


@pytest.mark.parametrize("path", ["/tracks/%00/", "/shared/%00/", "/api/v1/tracks/%00/files/track.wav", "/%ff%fe/"])
def test_odd_addresses_are_not_there(path: str) -> None:
    assert begun(Client()).get(path).status_code in (401, 404)


def test_a_cookie_needs_the_csrf_token_and_a_bearer_does_not(client: Client) -> None:
    begun(Client())
    browser = Client(enforce_csrf_checks=True)
    assert browser.post("/", {"seconds": 4}).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.cookies.update(begun(Client()).cookies)
    track = Track.objects.latest("created")
    for method, path in [*API_ROUTES[1:6], ("post", API)]:
        problem(getattr(strict, method)(path.format(id=track.id)), 403)
    for method, path in PAGES[2:7]:
        assert getattr(strict, method)(path.format(id=track.id)).status_code == 403
    assert Track.objects.get(id=track.id).state == State.QUEUED
    token = "x" * 32
    strict.cookies["csrftoken"] = token
    assert strict.post(f"{API}{track.id}/cancel/", headers={"X-CSRFToken": token}).status_code == 200
    assert strict.post(f"/tracks/{track.id}/share/", {"csrfmiddlewaretoken": token}).status_code == 302
    form = {"image": SimpleUploadedFile("a.png", webapp.picture()), "seconds": 4, "csrfmiddlewaretoken": token}
    assert strict.post(API, form).status_code == 202


def test_a_shared_link_is_for_everybody_until_it_is_taken_back(
    client: Client, done: tuple[Track, dict[str, str]]
) -> None:
    track, mine = done
    link = client.post(f"{API}{track.id}/share/", headers=mine).json()["shared_at"]
    assert track.id not in link
    path = link.removeprefix("http://testserver")
    assert client.get(path).status_code == 200
    assert body(client.get(f"{path}files/track.mp3"))
    assert client.get(f"{path}files/picture.png").status_code == 404
    assert client.delete(f"{API}{track.id}/share/", headers=mine).json()["shared_at"] is None
    assert client.get(path).status_code == client.get(f"{path}files/track.mp3").status_code == 404
    again = client.post(f"{API}{track.id}/share/", headers=mine).json()["shared_at"]
    assert again != link
    assert client.delete(f"{API}{track.id}/", headers=mine).status_code == 204
    assert client.get(again.removeprefix("http://testserver")).status_code == 404


def test_what_is_deleted_is_gone_from_everywhere(client: Client, done: tuple[Track, dict[str, str]]) -> None:
    track, mine = done
    assert client.delete(f"{API}{track.id}/", headers=mine).status_code == 204
    for method, path in API_ROUTES:
        problem(getattr(client, method)(path.format(id=track.id), headers=mine), 404)
    assert client.get(API, headers=mine).json()["results"] == []


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"seconds": "1"}, 400, "seconds"),
        ({"seconds": "nan"}, 400, "seconds"),
        ({"seconds": "inf"}, 400, "seconds"),
        ({"seconds": "121"}, 400, "seconds"),
        ({"seconds": "many"}, 400, "seconds"),
        ({"seed": "-1"}, 400, "seed"),
        ({"seed": "9" * 400}, 400, "seed"),
        ({"seed": "1.5"}, 400, "seed"),
        ({"genre": "polka"}, 400, "genre"),
        ({"genre": "\ud800".encode("utf-8", "surrogatepass")}, 400, "genre"),
        ({"musician": "nobody"}, 400, "musician"),
        ({"musician": "a\0b"}, 400, "musician"),
        ({"image": "no file"}, 400, "image"),
        ({"image": ""}, 400, "image"),
        ({"image": SimpleUploadedFile("a.png", b"")}, 400, "image"),
        ({"image": SimpleUploadedFile("a.png", b"no picture")}, 422, "picture"),
        ({"image": SimpleUploadedFile("a.gif", b"GIF89a....")}, 422, "GIF"),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused_with_a_reason(
    client: Client, fields: dict[str, Any], status: int, word: str
) -> None:
    image = fields.get("image", SimpleUploadedFile("a.png", webapp.picture()))
    if isinstance(image, SimpleUploadedFile):
        image.seek(0)
    said = problem(client.post(API, {"seconds": 4, **fields, "image": image}), status)
    assert word in said["detail"]
    assert not Track.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000, b"{", b"", b'{"genre": "\\ud800"}', b'{"description": "\\ud800"}', b"[]", b"null", b'"x"',
        b'{"seconds": NaN}', b'{"seconds": 1e999}', b'{"seed": %s}' % (b"9" * 5000), b'{"key": "H minor"}', b"\xff\xfe",
        b'{"moods": {"a": 1}}', b'{"moods": 7}', b'{"bpm": true}', b'{"description": ["x"]}', b'{"moods": [[]]}',
        b'{"key": "C\\u0000"}', b'{"description": ""}', b'{"seconds": 1000}', b'{"keywords": ["' + b"x" * 61 + b'"]}',
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_a_remix_refuses_what_is_no_description(
    client: Client, done: tuple[Track, dict[str, str]], body: bytes
) -> None:
    track, mine = done
    answer = client.post(f"{API}{track.id}/remix/", body, content_type="application/json", headers=mine)
    if body == b"":  # nothing is said: all stays
        assert answer.status_code == 202
    else:
        problem(answer, 400)
        assert Track.objects.count() == 1


def test_a_remix_changes_what_it_says_and_keeps_the_rest(client: Client, done: tuple[Track, dict[str, str]]) -> None:
    track, mine = done
    said = {"bpm": 99, "moods": ["calm"], "seed": 3}
    answer = client.post(f"{API}{track.id}/remix/", said, content_type="application/json", headers=mine)
    assert answer.status_code == 202
    made = Track.objects.get(id=answer.json()["id"])
    assert made.given == {**track.description, "bpm": 99, "moods": ["calm"]}
    assert (made.seed, made.seconds, made.parent_id) == (3, 4, track.id)
    waiting = client.post(f"{API}{made.id}/remix/", {}, content_type="application/json", headers=mine)
    assert "wait" in problem(waiting, 400)["detail"]


def test_chance_falls_the_same_for_an_order_that_is_sent_again(client: Client) -> None:
    token = client.post("/api/v1/token/").json()["token"]
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
    first, again, other = (
        client.post(
            API,
            {"image": SimpleUploadedFile("a.png", webapp.picture(), "image/png")},
            headers={**headers, "Idempotency-Key": key},
        )
        for key in ("k", "k", "other")
    )
    assert first.status_code == again.status_code == 202
    assert first.json()["track"]["id"] == again.json()["track"]["id"] != other.json()["track"]["id"]
    assert first.json()["track"]["seed"] != other.json()["track"]["seed"]
    assert client.post(API, {}, headers={"Idempotency-Key": "k"}).status_code in (400, 401)


def test_an_idempotency_key_makes_one_track(client: Client) -> None:
    mine = bearer(Visitor.new())
    headers = {**mine, "Idempotency-Key": "k"}
    first, again = (upload(client, headers=headers, seed=1) for _ in range(2))
    assert first.status_code == again.status_code == 202
    assert first.json()["track"]["id"] == again.json()["track"]["id"]
    assert "Idempotency-Key" in problem(upload(client, headers=headers, seed=2), 422)["detail"]
    assert Track.objects.count() == 1


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("get", "/api/v1/nothing/", {}, 404),
        ("get", f"{API}{'0' * 32}/", {}, 404),
        ("get", f"{API}not-an-id/", {}, 404),
        ("get", f"{API}?cursor=x", {}, 404),
        ("put", API, {}, 405),
        ("post", API, {"data": "<x/>", "content_type": "text/xml"}, 415),
        ("post", API, {"data": "x", "content_type": "multipart/form-data"}, 400),
        ("post", API, {"data": b"--x\r\n", "content_type": "multipart/form-data; boundary=\xff"}, 400),
        ("post", API, {"data": {f"f{n}": "x" for n in range(200)}}, 400),
        ("post", API, {"data": {"genre": "x" * 200_000}}, 400),
        ("post", API, {"data": {str(n): BytesIO(b"x") for n in range(9)}}, 400),
        ("post", API, {"data": b"[" * 200_000, "content_type": "application/json"}, 413),
        ("get", API, {"headers": {"Authorization": "Basic eDp5"}}, 401),
        ("get", API, {"headers": {"Authorization": "Bearer short"}}, 401),
        ("get", API, {"headers": {"Accept": "text/html"}}, 406),
        ("get", API, {"headers": {"Host": "evil.example"}}, 400),
    ],
)
def test_every_error_is_a_problem(client: Client, method: str, path: str, more: dict[str, Any], status: int) -> None:
    headers = {**({"Authorization": f"Bearer {'x' * 43}"} if path != API or method != "post" else {})}
    more = {**more, "headers": {**headers, **more.get("headers", {})}}
    if isinstance(more.get("data"), dict) and all(isinstance(one, BytesIO) for one in more["data"].values()):
        more["data"] = {name: SimpleUploadedFile(name, b"x") for name in more["data"]}
    answer = getattr(client, method)(path, **more)
    problem(answer, status)
    if status == 405:
        assert "POST" in answer["Allow"]
    if status == 401:
        assert answer["WWW-Authenticate"] == "Bearer"


def test_a_large_body_is_refused_unread(client: Client) -> None:
    class Unread(BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("it was read")

    browser = Client(headers={"Accept-Language": "ko"})
    for length in (str(2**26), str(10**30), "-1", "x"):
        for kind, said in (("multipart/form-data; boundary=x", "최대 30 MB까지"), ("text/plain", "쓸 수 없는 요청")):
            more = {"CONTENT_LENGTH": length, "CONTENT_TYPE": kind, "wsgi.input": Unread()}
            problem(client.generic("POST", API, **more), 413)
            page = browser.generic("POST", "/", **more)
            assert page.status_code == 413 and page["Content-Type"].startswith("text/html")
            assert said in page.content.decode() and "default-src 'none'" in page["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (ConflictError("x"), 422, None),
        (GoneError("x"), 404, None),
        (ImageError("x"), 422, None),
        (InputError("x"), 400, None),
        (DescriptionError("key: x"), 400, None),
        (DescriptionError("x"), 400, None),
        (QueueFullError(7), 503, "7"),
        (StoreError("secret"), 503, "60"),
        (Throttled(5), 429, "6"),
        (ParseError("x"), 400, None),
    ],
    ids=repr,
)
def test_pages_and_programs_are_refused_alike(
    error: Exception, status: int, wait: str | None, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "create", mock.Mock(side_effect=error))
    answer = upload(client)
    assert "secret" not in str(problem(answer, status))
    image = SimpleUploadedFile("a.png", webapp.picture(), "image/png")
    page = Client(headers={"Accept-Language": "ko"}).post("/", {"image": image, "seconds": 4})
    assert page.status_code == status and re.search("[가-힣]{2}.*[가-힣]{2}", alert(page))
    assert answer.get("Retry-After") == page.get("Retry-After") == wait


def test_what_fails_on_our_side_is_a_problem_too(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(jobs, "create", broken)
    assert "secret" not in str(problem(upload(client), 500))
    assert "secret detail" in caplog.text


# --- limits ----------------------------------------------------------------------------------------------------------


def test_an_order_that_is_refused_or_sent_again_is_no_song(client: Client, settings: Any) -> None:
    settings.CONFIG = webapp.configure(songs_per_hour=2)
    headers = {**bearer(Visitor.new()), "Idempotency-Key": "k"}
    assert upload(client, seconds=1).status_code == 400
    assert upload(client, image=SimpleUploadedFile("a.png", b"no picture")).status_code == 422
    assert [upload(client, headers=headers, seed=1).status_code for _ in range(3)] == [202] * 3
    assert [upload(client).status_code for _ in range(2)] == [202, 429]


def test_a_household_of_ipv6_is_one_client(client: Client, settings: Any) -> None:
    settings.CONFIG = webapp.configure(requests_per_minute=1)
    mine = bearer(Visitor.new())
    codes = [
        client.get(API, headers=mine, REMOTE_ADDR=f"2001:db8::{one}").status_code for one in ("1", "2", "1:0:0:0:1")
    ]
    assert codes == [200, 429, 200]


def test_a_database_that_is_away_is_said_with_when_to_come_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: Any, **__: Any) -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(jobs, "create", locked)
    answer = upload(client)
    problem(answer, 503)
    assert answer["Retry-After"] == "60"
    page = Client().post("/", {"image": SimpleUploadedFile("a.png", webapp.picture()), "seconds": 4})
    assert page.status_code == 503 and page["Retry-After"] == "60"


def test_a_large_upload_lies_in_no_file_with_a_name(client: Client, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[Any] = []
    monkeypatch.setattr(
        "web.tracks.limits.open_image",
        lambda data: seen.extend([len(data), *tmp_path.iterdir()]) or Image.new("RGB", (32, 32)),
    )
    image = SimpleUploadedFile("a.png", b"x" * (2 * 2**20))
    assert upload(client, image=image).status_code == 202
    assert seen == [2 * 2**20]


def test_private_answers_are_kept_by_no_cache(client: Client) -> None:
    assert client.get(API, headers=bearer(Visitor.new()))["Cache-Control"] == "private, no-store"


def test_too_many_requests_are_told_when_to_come_back(client: Client, settings: Any) -> None:
    settings.CONFIG = webapp.configure(requests_per_minute=3, songs_per_hour=2)
    mine = bearer(Visitor.new())
    assert [client.get(API, headers=mine).status_code for _ in range(3)] == [200] * 3
    answer = client.get(API, headers=bearer(Visitor.new()))  # another token, the same address
    problem(answer, 429)
    assert 0 < int(answer["Retry-After"]) <= 61
    cache.clear()
    assert [upload(client).status_code for _ in range(2)] == [202] * 2
    answer = upload(client)
    problem(answer, 429)
    assert 0 < int(answer["Retry-After"]) <= 3601
    page = Client().post("/", {"image": SimpleUploadedFile("a.png", webapp.picture()), "seconds": 4})
    assert page.status_code == 429 and int(page["Retry-After"]) > 0


def test_a_full_queue_says_when_to_come_back(client: Client, settings: Any) -> None:
    settings.CONFIG = webapp.configure(workers=1, waiting=1)
    assert [upload(client).status_code for _ in range(2)] == [202] * 2
    answer = upload(client)
    problem(answer, 503)
    assert int(answer["Retry-After"]) > 0
    page = Client().post("/", {"image": SimpleUploadedFile("a.png", webapp.picture()), "seconds": 4})
    assert page.status_code == 503 and int(page["Retry-After"]) > 0
    assert Track.objects.count() == 2


def test_addresses_that_a_client_claims_count_only_behind_a_proxy(client: Client, settings: Any) -> None:
    settings.CONFIG = webapp.configure(requests_per_minute=1)
    mine = bearer(Visitor.new())
    seen = [client.get(API, headers={**mine, "X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in range(2)]
    assert seen == [200, 429]


def test_pages_of_the_list_have_every_track_once(client: Client, settings: Any) -> None:
    settings.CONFIG = webapp.configure(waiting=100)
    mine = Visitor.new()
    for number in range(45):
        Track.objects.create(owner=mine.owner, fingerprint=str(number), seconds=4, seed=number, musician="arranger")
    seen: list[str] = []
    address = API
    while address:
        page = client.get(address, headers=bearer(mine)).json()
        assert len(page["results"]) <= 20
        seen += [one["id"] for one in page["results"]]
        address = page["next"]
    assert len(seen) == len(set(seen)) == 45
    assert [Track.objects.get(id=one).seed for one in seen] == list(range(44, -1, -1))


# --- pages -----------------------------------------------------------------------------------------------------------


def test_the_history_has_every_track_and_marks_what_is_shared(settings: Any) -> None:
    browser = begun(Client())
    owner = Track.objects.get().owner
    ids = [
        Track.objects.create(
            owner=owner, fingerprint=str(number), seconds=4, seed=number, musician="arranger", state=State.CANCELLED
        ).id
        for number in range(64)
    ]
    jobs.share(Track.objects.get(id=ids[-1]))
    pages = [browser.get(f"/tracks/?page={number}").content.decode() for number in (1, 2, 3)]
    assert [page.count("<img") for page in pages] == [30, 30, 5]
    assert [page.count('alt=""') for page in pages] == [30, 30, 5]
    assert [page.count("· Shared") for page in pages] == [1, 0, 0]
    assert all(sum(one in page for page in pages) == 1 for one in ids)
    assert "Page 2 of 3" in pages[1] and "?page=1" in pages[1] and "?page=3" in pages[1]
    assert "?page=3" in browser.get("/tracks/?page=2").content.decode()
    assert browser.get("/tracks/?page=nonsense").status_code == 200


def test_pages_answer_head(done: tuple[Track, dict[str, str]]) -> None:
    browser = begun(Client())
    mine = Track.objects.exclude(id=done[0].id).get()
    shared = jobs.share(done[0])
    tracks = ("/tracks/", f"/tracks/{mine.id}/", f"/tracks/{mine.id}/progress/", f"/shared/{shared}/")
    for path in ("/", "/about/", *tracks):
        answer = browser.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path


@pytest.mark.parametrize("has_description", [False, True])
def test_what_came_to_nothing_is_tried_again_with_its_picture(
    client: Client, has_description: bool, done: tuple[Track, dict[str, str]]
) -> None:
    described, _ = done
    visitor = Visitor.new()
    mine = bearer(visitor)
    first = upload(client, headers=mine, genre="jazz", seed=5).json()["track"]["id"]
    retry = f"{API}{first}/retry/"
    assert "can be tried again" in problem(client.post(retry, headers=mine), 400)["detail"]
    jobs.cancel(Track.objects.get(id=first))
    if has_description:
        Track.objects.filter(id=first).update(description=described.description)
    answers = [client.post(retry, headers={**mine, "Idempotency-Key": "k"}) for _ in range(2)]
    assert [one.status_code for one in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    made = Track.objects.get(id=answers[0].json()["id"])
    assert (made.state, made.genre, made.seed, made.seconds, made.parent_id) == (State.QUEUED, "jazz", 5, 4, first)
    assert made.given == (described.description if has_description else None)
    assert files.store().get(files.prefix(made.id) + files.PICTURE)


def test_a_page_refuses_in_korean(done: tuple[Track, dict[str, str]]) -> None:
    browser = Client(headers={"Accept-Language": "ko"})
    begun(browser)
    mine = Track.objects.exclude(id=done[0].id)
    said = {}
    for fields in ({"seconds": "1000"}, {"musician": "nobody"}):
        image = SimpleUploadedFile("a.png", webapp.picture(), "image/png")
        said[next(iter(fields))] = alert(browser.post("/", {"image": image, **fields}))
    said["waiting"] = alert(browser.post(f"/tracks/{mine.get().id}/remix/", {}))
    said["retry"] = alert(browser.post(f"/tracks/{mine.get().id}/retry/", {}))
    mine.update(description=done[0].description)
    for fields in ({"key": "H minor"}, {"moods": "calm: sunny."}, {"seed": "x"}):
        said[next(iter(fields))] = alert(browser.post(f"/tracks/{mine.get().id}/remix/", fields))
    assert "major 또는 minor" in said["key"] and "쉼표" in said["moods"]
    for field, text in said.items():
        assert re.search("[가-힣]{2}.*[가-힣]{2}", text), (field, text)
        assert not re.search("[A-Za-z]{9}", text), (field, text)


def alert(answer: Any) -> str:
    """What a page says is wrong."""
    assert answer.status_code >= 400, answer.content
    found = re.search(r'<p[^>]*role="alert"[^>]*>([^<]+)</p>', answer.content.decode())
    assert found is not None, answer.content.decode()
    return found[1]


# --- files -----------------------------------------------------------------------------------------------------------


def body(answer: Any) -> bytes:
    whole: bytes = answer.getvalue() if answer.streaming else answer.content
    return whole


@pytest.mark.parametrize("name", ["track.wav", "track.mp3", "track.mid", "card.json", "preview.webp"])
def test_a_file_is_whole_with_its_type_and_can_be_downloaded(
    name: str, client: Client, done: tuple[Track, dict[str, str]]
) -> None:
    track, mine = done
    address = f"{API}{track.id}/files/{name}"
    answer = client.get(address, headers=mine)
    whole = body(answer)
    kinds = {
        "wav": "audio/wav",
        "mp3": "audio/mpeg",
        "mid": "audio/midi",
        "json": "application/json",
        "webp": "image/webp",
    }
    assert answer["Content-Type"] == kinds[name.rpartition(".")[2]]
    assert (int(answer["Content-Length"]), answer["Accept-Ranges"]) == (len(whole), "bytes")
    assert "sandbox" in answer["Content-Security-Policy"] and answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Cache-Control"] == "private, no-cache" and "Content-Disposition" not in answer
    head = client.head(address, headers=mine)
    assert (head.status_code, head["Content-Length"], body(head)) == (200, str(len(whole)), b"")
    download = client.get(f"{address}?download", headers=mine)
    assert body(download) == whole
    assert f"{track.id[:6]}.{name.rpartition('.')[2]}" in download["Content-Disposition"]
    assert client.get(f"{API}{track.id}/files/picture.png", headers=mine).status_code == 404


def test_a_file_in_a_bucket_is_a_link_that_soon_ends(
    client: Client, done: tuple[Track, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Bucket:
        def link(self, name: str, *, download_as: str, lasts: timedelta) -> str:
            asked.append((name, download_as, lasts))
            return "https://bucket.example/it?signed=1"

    track, mine = done
    monkeypatch.setattr(files, "store", Bucket)
    address = f"{API}{track.id}/files/track.mp3"
    for given in (address, f"{address}?download"):
        answer = client.get(given, headers=mine)
        assert (answer.status_code, answer["Location"]) == (302, "https://bucket.example/it?signed=1")
        assert answer["Cache-Control"] == "no-store"
    shown, kept = asked
    assert shown == (f"web/{track.id}/track.mp3", "", timedelta(minutes=10))
    assert kept[1].startswith("melodify-") and kept[1].endswith(f"{track.id[:6]}.mp3")


@pytest.mark.parametrize(
    ("said", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=0-", 0, -1), ("bytes=100-199", 100, 199), ("bytes=-7", -7, -1),
     ("bytes=100-999999999", 100, -1), ("bytes=-999999999", 0, -1)],
)  # fmt: skip
def test_a_range_is_exactly_that_part(
    said: str, first: int, last: int, client: Client, done: tuple[Track, dict[str, str]]
) -> None:
    track, mine = done
    address = f"{API}{track.id}/files/track.wav"
    whole = body(client.get(address, headers=mine))
    start, stop = first % len(whole), last % len(whole) + 1
    answer = client.get(address, headers={**mine, "Range": said})
    assert answer.status_code == 206
    assert answer["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert int(answer["Content-Length"]) == stop - start
    assert body(answer) == whole[start:stop]
    head = client.head(address, headers={**mine, "Range": said})
    assert (head.status_code, head["Content-Length"], body(head)) == (206, str(stop - start), b"")


@pytest.mark.parametrize("said", ["bytes=999999999-", "bytes=999999999-1999999999", "bytes=-0"])
def test_a_range_outside_is_refused(said: str, client: Client, done: tuple[Track, dict[str, str]]) -> None:
    track, mine = done
    answer = client.get(f"{API}{track.id}/files/track.wav", headers={**mine, "Range": said})
    assert answer.status_code == 416
    assert answer["Content-Range"].startswith("bytes */") and body(answer) == b""


@pytest.mark.parametrize("said", ["bytes=5-2", "bytes=x-y", "lines=0-3", "bytes=0-1,5-9", "bytes", "bytes=--1", "\xff"])
def test_a_range_that_is_none_is_ignored(said: str, client: Client, done: tuple[Track, dict[str, str]]) -> None:
    track, mine = done
    answer = client.get(f"{API}{track.id}/files/track.mid", headers={**mine, "Range": said})
    assert answer.status_code == 200 and len(body(answer)) == int(answer["Content-Length"])


def test_what_a_browser_has_is_not_sent_again(client: Client, done: tuple[Track, dict[str, str]]) -> None:
    track, mine = done
    address = f"{API}{track.id}/files/track.mid"
    etag = client.head(address, headers=mine)["ETag"]
    for said in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer = client.get(address, headers={**mine, "If-None-Match": said})
        assert (answer.status_code, body(answer), answer["ETag"]) == (304, b"", etag), said
    assert body(client.get(address, headers={**mine, "If-None-Match": '"other"'}))
    part = {**mine, "Range": "bytes=0-9"}
    assert len(body(client.get(address, headers={**part, "If-Range": etag}))) == 10
    for stale in ('"other"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert len(body(client.get(address, headers={**part, "If-Range": stale}))) > 10, stale
