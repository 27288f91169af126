"""Processes killed, or asked to end, at any moment: no accepted song is lost or made twice, and no process is left."""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import webapp
from webserver import WebServer, web_server

KILLS = 20
QUICK = {"WEB_HEARTBEAT": 0.2, "WEB_LOST_AFTER": 1.5, "WEB_WAITING": 200, "WEB_SONGS_PER_HOUR": 10**6}
QUICK |= {"WEB_REQUESTS_PER_MINUTE": 10**6, "WEB_ATTEMPTS": 10, "MELODIFY_LOG_FORMAT": "json"}
ENDED = ("done", "failed", "cancelled")


def order(server: WebServer, count: int, token: str = "") -> tuple[list[str], str]:
    """The ids of so many new tracks, all alike but two colours, and whose they are."""
    ids = []
    for number in range(count):
        answer = server.order(webapp.picture("red" if number % 2 else "blue"), token, seconds=4, seed=3)
        assert answer.status_code == 202, answer.text
        token = token or answer.json()["token"]
        ids.append(answer.json()["track"]["id"])
    return ids, token


def states(server: WebServer, token: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    address = server.api
    while address:
        page = requests.get(address, headers={"Authorization": f"Bearer {token}"}, timeout=30).json()
        found |= {one["id"]: one for one in page["results"]}
        address = page["next"]
    return found


def workers(server: WebServer) -> list[psutil.Process]:
    return server.started("web", "worker")


def is_one(server: WebServer, token: str, state: str) -> Callable[[], bool]:
    return lambda: any(one["state"] == state for one in states(server, token).values())


def finished(server: WebServer) -> Counter[str]:
    """How often a worker told of each track that it is done."""
    lines = [line for line in server.lines() if (line["logger"], line["message"]) == ("melodify_lib.web", "done")]
    return Counter(line["logging.googleapis.com/trace"] for line in lines)


def counted(server: WebServer) -> float:
    """Songs that are done, as the metrics have it."""
    said = requests.get(f"{server.url}/metrics", timeout=30).text
    return float(re.search(r'^melodify_web_songs_total{end="done",kind=""} (.*)$', said, re.MULTILINE)[1])  # type: ignore[index]


def cards(server: WebServer, ids: list[str]) -> dict[str, bytes]:
    folder = server.folder / "store" / "web"
    return {one: (folder / one / "card.json").read_bytes() for one in ids}


def test_workers_killed_at_any_moment_lose_no_song_and_make_none_twice(tmp_path: Path) -> None:
    rng = random.Random(5)
    with web_server(tmp_path, WEB_WORKERS=2, **QUICK) as server:
        ids, token = order(server, 4)
        killed = 0
        while killed < KILLS:
            time.sleep(rng.uniform(0, 1.5))  # the moment is what is drawn, not something that is waited for
            if sum(one["state"] in ("queued", "running") for one in states(server, token).values()) < 3:
                ids += order(server, 2, token)[0]
            for worker in rng.sample(found := workers(server), min(len(found), 1)):
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
                    killed += 1
        server.wait_for(lambda: all(one["state"] in ENDED for one in states(server, token).values()), 120)
        found = states(server, token)
        assert set(found) == set(ids), "lost or doubled"
        for one in found.values():
            assert one["state"] == "done" or (one["state"] == "failed" and one["error"]), one
        done = [one for one in ids if found[one]["state"] == "done"]
        assert len(done) > len(ids) / 2, found
        assert {path.parent.name for path in server.stored()} == set(ids)
        # One that was killed between the row and the line told of nothing; with the line comes the row, and once.
        told = finished(server)
        assert set(told.values()) == {1} and set(told) <= set(done) and len(told) >= len(done) - KILLS, told
        assert counted(server) == len(done)
        # However often it was begun, the song is what its seed makes of it.
        assert len(set(cards(server, done).values())) <= 2
        assert len({path.read_bytes() for path in server.stored() if path.name == "track.wav"}) <= 2
        assert len(workers(server)) == 2
        for one in ids:  # half-written files of those that were killed go too
            requests.delete(f"{server.api}{one}/", headers={"Authorization": f"Bearer {token}"}, timeout=30)
        server.wait_for(lambda: not server.stored())
    assert server.process.returncode == 0


def test_gunicorn_killed_is_started_anew_and_a_restart_makes_what_waits(tmp_path: Path) -> None:
    with web_server(tmp_path, WEB_WORKERS=1, WEB_GRACE=4, **QUICK) as server:
        (token,) = {order(server, 1)[1]}
        (gunicorn, *_) = server.started("gunicorn")
        gunicorn.kill()
        # Its old worker answers for another second; the new one comes when that has left the port.
        anew = lambda: [one for one in server.started("gunicorn") if one != gunicorn]  # noqa: E731
        server.wait_for(lambda: len(anew()) == 2 and server.ready() == 200)
        ids, _ = order(server, 4, token)
        server.wait_for(is_one(server, token, "running"))
        everything = server.tree()
        server.process.kill()  # it can tell nobody
        _, alive = psutil.wait_procs(everything, timeout=15)
        assert not alive, alive
    with web_server(tmp_path, WEB_WORKERS=1, **QUICK) as server:
        server.wait_for(lambda: all(one["state"] == "done" for one in states(server, token).values()), 120)
        assert len(states(server, token)) == 5 and set(ids) <= set(states(server, token))
        assert set(finished(server).values()) == {1} and counted(server) == 5
    assert server.process.returncode == 0


@pytest.mark.parametrize("grace", [0.5, 30])
def test_asked_to_end_it_finishes_its_song_or_gives_it_back(tmp_path: Path, grace: float) -> None:
    with web_server(tmp_path, WEB_WORKERS=1, WEB_GRACE=grace, **QUICK) as server:
        ids, token = order(server, 3)
        server.wait_for(is_one(server, token, "running"))
        everything = server.tree()
        server.process.terminate()
        assert server.process.wait(grace + 15) == 0
        _, alive = psutil.wait_procs(everything, timeout=5)
        assert not alive, alive
        assert "Traceback" not in server.log()
    rows = kept(tmp_path)
    assert set(rows) == set(ids)
    if grace > 1:  # there was time
        assert sorted(rows.values()) == ["done", "queued", "queued"]
    else:
        assert set(rows.values()) <= {"done", "queued", "running"}


def kept(folder: Path) -> dict[str, str]:
    """What the database says of each track."""
    with closing(sqlite3.connect(folder / "web" / "melodify.sqlite3")) as database:
        return dict(database.execute("SELECT id, state FROM tracks_track"))
