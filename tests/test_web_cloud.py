"""The web application in the cloud profile: a job on Vertex AI makes the song, the bucket keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from webserver import WebServer, web_server

from emulators.cloud import Cloud
from melodify_lib.nouns import TrackCard
from melodify_lib.samples import sample_picture
from melodify_lib.settings import Settings
from melodify_lib.store import open_store


@pytest.fixture(scope="module")
def server(servers: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    more = {"WEB_REQUESTS_PER_MINUTE": "100000", "WEB_HEARTBEAT": "0.3", "WEB_LOST_AFTER": "3", "WEB_DEADLINE": "120"}
    bucket = f"gs://{servers.environment['MELODIFY_BUCKET']}"
    folder = tmp_path_factory.mktemp("web")
    with web_server(folder, **{**servers.environment, "MELODIFY_STORE": bucket, **more}) as running:
        yield running


@pytest.fixture
def web(server: WebServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.headers["Authorization"] = f"Bearer {client.post('/api/v1/token/').json()['token']}"
        yield client


def order(web: httpx.Client, seed: int) -> str:
    with sample_picture("coffee").open("rb") as picture:
        answer = web.post("/api/v1/tracks/", files={"image": picture}, data={"seconds": 4, "seed": seed})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["track"]["id"])


def read(web: httpx.Client, track: str) -> dict[str, Any]:
    answer: dict[str, Any] = web.get(f"/api/v1/tracks/{track}/").json()
    return answer


def ended(server: WebServer, web: httpx.Client, track: str) -> dict[str, Any]:
    server.wait_for(lambda: read(web, track)["state"] not in ("queued", "running"), 90)
    return read(web, track)


def jobs(gcp: Cloud) -> int:
    return len(gcp.vertex.pipeline_jobs)


def stored(prefix: str) -> list[str]:
    return open_store(Settings.load()).list(prefix)


def test_a_song_is_made_by_one_job_kept_in_the_bucket_and_deleted_from_it(
    gcp: Cloud, server: WebServer, web: httpx.Client
) -> None:
    before = jobs(gcp)
    track = order(web, 1)
    done = ended(server, web, track)
    assert (done["state"], done["error"]) == ("done", ""), done
    assert jobs(gcp) == before + 1
    assert done["caption"]["source"].startswith("openai") and done["description"]["genre"]
    assert stored(f"web/{track}/") and not stored("songs/") and not stored(f"web/{track}/pipeline")
    wav = web.get(done["files"]["track.wav"], follow_redirects=False)
    assert wav.status_code == 302 and "X-Goog-Signature" in wav.headers["Location"]
    song = httpx.get(wav.headers["Location"]).content
    card = TrackCard.from_json(open_store(Settings.load()).get(f"web/{track}/card.json"))
    assert song[:4] == b"RIFF" and card.requested.duration_s == 4
    with httpx.Client() as stranger:
        assert stranger.get(done["files"]["track.wav"]).status_code == 401

    again = web.post(f"/api/v1/tracks/{track}/remix/", json={"bpm": 71, "seed": 5}).json()["id"]
    remixed = ended(server, web, again)
    assert remixed["state"] == "done" and remixed["description"] == {**done["description"], "bpm": 71}
    assert remixed["caption"] == done["caption"] and jobs(gcp) == before + 2

    for one in (track, again):
        assert web.delete(f"/api/v1/tracks/{one}/").status_code == 204
    assert not stored("web/") and not stored("songs/")


def test_a_worker_that_is_killed_leaves_its_job_to_the_next(gcp: Cloud, server: WebServer, web: httpx.Client) -> None:
    before = jobs(gcp)
    track = order(web, 2)
    server.wait_for(lambda: jobs(gcp) > before)
    (worker,) = server.started("web", "worker")
    worker.kill()
    assert ended(server, web, track)["state"] == "done"
    assert jobs(gcp) == before + 1, "the same job is found"


def test_a_visitor_who_cancels_cancels_the_job(gcp: Cloud, server: WebServer, web: httpx.Client) -> None:
    before = set(gcp.vertex.pipeline_jobs)
    track = order(web, 3)
    server.wait_for(lambda: set(gcp.vertex.pipeline_jobs) - before)
    assert web.post(f"/api/v1/tracks/{track}/cancel/").json()["state"] == "cancelled"
    (name,) = set(gcp.vertex.pipeline_jobs) - before
    server.wait_for(lambda: gcp.vertex.pipeline_jobs[name]["state"] == "PIPELINE_STATE_CANCELLED")
