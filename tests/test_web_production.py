"""Production mode: no start with a default, and what HTTPS and whoever runs it ask for."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from processes import environment
from webserver import MELODIFY, WebServer, web_server

from web import server as server_module

KEY = "k7Jx2vQm9Rt4Wz8Ly3Nb6Hc5Gd1Sf0Pa-k7Jx2vQm9Rt4Wz8Ly3Nb6Hc5"
HOST, TOKEN = "music.example.org", "a-token-for-prometheus"
PROPER = {"WEB_PRODUCTION": "1", "WEB_SECRET_KEY": KEY, "WEB_HOSTS": f'["{HOST}"]', "WEB_PROXIES": "1"}
BEHIND_PROXY = {"Host": HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9"}


def given(folder: Path, **variables: str) -> dict[str, str]:
    return {**environment(), "WEB_FOLDER": str(folder), **variables}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"WEB_SECRET_KEY": ""}, "secret key"),
        ({"WEB_SECRET_KEY": "short"}, "secret key"),
        ({"WEB_SECRET_KEY": "ab" * 40}, "secret key"),
        ({"WEB_SECRET_KEY": "django-insecure-" + KEY}, "secret key"),
        ({"WEB_HOSTS": None}, "hosts"),
        ({"WEB_HOSTS": "[]"}, "hosts"),
        ({"WEB_HOSTS": '["*"]'}, "hosts"),
        ({"WEB_HOSTS": "music.example.org"}, "hosts"),
        ({"WEB_WORKERS": "-1"}, "workers"),
        ({"WEB_MUSICIANS": "[]"}, "musicians"),
    ],
    ids=str,
)
def test_it_does_not_start_without_a_key_and_hosts_of_its_own(
    tmp_path: Path, changes: dict[str, str | None], says: str
) -> None:
    variables = {name: value for name, value in {**PROPER, **changes}.items() if value is not None}
    done = subprocess.run(
        [MELODIFY, "web"], env=given(tmp_path, **variables),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert KEY not in done.stderr and not list(tmp_path.iterdir())


def test_djangos_own_check_has_nothing_to_say(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "web", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(
        command, env=given(tmp_path, **PROPER), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0 and "no issues" in done.stdout, done.stdout + done.stderr
    migrations = [sys.executable, "-m", "web", "makemigrations", "--check", "--dry-run"]
    subprocess.run(migrations, env=given(tmp_path, **PROPER), capture_output=True, check=True, timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    folder = tmp_path_factory.mktemp("production")
    with web_server(folder, **PROPER, WEB_METRICS_TOKEN=TOKEN, WEB_LOST_AFTER=2, WEB_HEARTBEAT=0.5) as running:
        yield running


@pytest.mark.parametrize(
    ("host", "hosts", "is_ready", "says"),
    [
        ("127.0.0.1", None, True, ["Melodify is at http://127.0.0.1:80"]),
        ("0.0.0.0", None, True, ["Melodify is at http://127.0.0.1:80", "Only this machine reaches it: .*WEB_HOSTS="]),
        ("0.0.0.0", '["192.168.1.5"]', True, ["Melodify is at http://127.0.0.1:80"]),
        ("::1", None, False, [r"Melodify is still starting: http://\[::1\]:80/ready says"]),
    ],
)  # fmt: skip
def test_what_it_says_of_its_address(
    host: str, hosts: str | None, is_ready: bool, says: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    pauses = iter([lambda: None, lambda: None])
    if hosts is not None:
        monkeypatch.setenv("WEB_HOSTS", hosts)
    monkeypatch.setattr(server_module, "START_WITHIN_S", -1)
    monkeypatch.setattr(server_module, "_prepare", lambda *_: None)
    monkeypatch.setattr(server_module, "is_ready", lambda *_: is_ready)
    monkeypatch.setattr(server_module.Child, "keep", lambda child: False)
    monkeypatch.setattr(server_module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(server_module.time, "sleep", lambda _: next(pauses)())
    with pytest.raises(StopIteration):
        server_module.run(host, 80, said.append)
    assert len(said) == len(says)
    for text, pattern in zip(said, says, strict=True):
        assert re.match(pattern, text), text


def test_it_says_where_it_is_before_anybody_asks_for_its_host(server: WebServer) -> None:
    server.wait_for(lambda: "Melodify is at" in server.log(), 10)


def test_all_but_health_is_https_and_of_its_own_hosts(server: WebServer) -> None:
    plain = requests.get(server.url, headers={"Host": HOST}, allow_redirects=False, timeout=30)
    assert (plain.status_code, plain.headers["Location"]) == (301, f"https://{HOST}/")
    assert requests.get(server.url, headers={**BEHIND_PROXY, "Host": "evil.example"}, timeout=30).status_code == 400
    for path in ("health", "ready"):
        assert requests.get(f"{server.url}/{path}", allow_redirects=False, timeout=30).status_code == 200


def test_pages_are_locked_down_and_cookies_are_for_https(server: WebServer) -> None:
    page = requests.get(f"{server.url}/", headers=BEHIND_PROXY, timeout=30)
    assert page.status_code == 200
    headers = page.headers
    policy = {one.split()[0]: one.split()[1:] for one in headers["Content-Security-Policy"].split("; ")}
    assert policy["default-src"] == ["'none'"] and policy["script-src"] == policy["style-src"] == ["'self'"]
    assert policy["frame-ancestors"] == policy["base-uri"] == ["'none'"] and "unsafe" not in str(policy)
    assert headers["Strict-Transport-Security"].startswith("max-age=31536000")
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
    assert headers["Referrer-Policy"] == "same-origin" and "no-store" in headers["Cache-Control"]
    assert "<style" not in page.text and " style=" not in page.text and " onclick=" not in page.text
    assert "<script>" not in page.text
    said = [value for name, value in page.raw.headers.items() if name.lower() == "set-cookie"]
    assert all("Secure" in one and "SameSite=Lax" in one for one in said), said


def test_metrics_are_for_who_has_the_token(server: WebServer) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer é".encode()},
    ):
        assert requests.get(f"{server.url}/metrics", headers=headers, timeout=30).status_code == 401  # type: ignore[arg-type]
    answer = requests.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
    assert answer.status_code == 200
    assert "melodify_web_workers 1.0" in answer.text and 'melodify_web_tracks{state="queued"} 0.0' in answer.text
    for method in ("GET", "BREW", "X" * 15):
        requests.request(method, f"{server.url}/about/", headers=BEHIND_PROXY, timeout=30)
    assert "BREW" not in requests.get(answer.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30).text


def test_it_is_ready_while_somebody_makes_songs(server: WebServer) -> None:
    assert server.ready() == 200
    (worker,) = server.started("web", "worker")
    worker.send_signal(signal.SIGSTOP)
    try:
        server.wait_for(lambda: server.ready() == 503)
        answer = requests.get(f"{server.url}/ready", timeout=30).json()
        assert answer == {"database": True, "store": True, "worker": False}
        assert requests.get(f"{server.url}/health", timeout=30).status_code == 200
    finally:
        worker.send_signal(signal.SIGCONT)
    server.wait_for(lambda: server.ready() == 200)


def test_it_is_not_ready_where_nothing_can_be_written(server: WebServer) -> None:
    store = server.folder / "store"
    store.rename(server.folder / "away")
    store.write_bytes(b"")  # root writes where it may not; so no folder
    try:
        server.wait_for(lambda: server.ready() == 503, 30)
        answer = requests.get(f"{server.url}/ready", timeout=30).json()
        assert answer == {"database": True, "store": False, "worker": True}
    finally:
        store.unlink()
        (server.folder / "away").rename(store)
    server.wait_for(lambda: server.ready() == 200)
    assert not server.stored()


def test_bots_that_ask_for_other_hosts_fill_no_log(server: WebServer) -> None:
    assert requests.get(server.url, headers={**BEHIND_PROXY, "Host": "bot.example"}, timeout=30).status_code == 400
    assert requests.head(server.url, headers=BEHIND_PROXY, timeout=30).status_code in (200, 405)
    assert "Traceback" not in server.log() and "no-body" not in server.log()
