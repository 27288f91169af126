"""The endpoint, as the process that the image runs: Vertex AI's contract, and what goes wrong."""

import asyncio
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
import soundfile
from safetensors.torch import load_file, save_file
from server import HEALTH, PREDICT, Server, read_answer, server

from emulators import gcs as bucket
from emulators.proxy import Proxy
from melodify_lib.cloud.store import GcsStore
from melodify_lib.errors import ModelError
from melodify_lib.logs import trace_of
from melodify_lib.nouns import MusicDescription, TrackCard, sha256
from melodify_lib.settings import Settings
from melodify_lib.store import FolderStore, get_all
from serving import COMMAND
from serving.process import running

ROOT = Path(__file__).parent.parent
PROMPT = "A calm piano piece. bpm: 90. key: D minor. genre: jazz. moods: calm, warm. instrument: piano"
DESCRIPTION = MusicDescription.parse(PROMPT).model_dump(mode="json")
LONG = {"prompt": "a song that nobody waits for to the end", "seconds": 300}


@pytest.fixture(scope="module")
def checkpoint(untrained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache"))
        )  # the graphs are made once for all servers
        yield untrained["mono"]


@pytest.fixture(scope="module")
def musicgen(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two songs at once, three that wait."""
    folder = tmp_path_factory.mktemp("musicgen")
    with server(folder, musician="musicgen", checkpoint=checkpoint, songs=2, waiting=3, deadline=50) as running:
        yield running


def test_predictions_come_in_order_with_audio_and_cards(musicgen: Server) -> None:
    first, second, third = musicgen.predict(
        {"description": DESCRIPTION, "seconds": 6}, {"prompt": PROMPT, "seed": 7.0}, {"prompt": "rain"}, seconds=4
    )
    for prediction, seconds in ((first, 6), (second, 4), (third, 4)):
        audio, rate = soundfile.read(prediction["audio"])
        assert (len(audio), rate) == (seconds * 32_000, 32_000)
        assert np.abs(audio).max() > 0.01
        assert prediction["duration_s"] == seconds
        assert prediction["name"].startswith("songs/")
    cards = [TrackCard.from_json(Path(prediction["card"]).read_bytes()) for prediction in (first, second)]
    assert [card.seed for card in cards] == [0, 7]
    assert all(card.description == MusicDescription.parse(PROMPT) for card in cards)
    free = json.loads(Path(third["card"]).read_text())
    assert (free["prompt"], free["requested"]["duration_s"]) == ("rain", 4)
    assert "description" not in free
    assert free["files"] == {"track.wav": sha256(Path(third["audio"]).read_bytes())}


def test_same_seed_same_bytes_alone_and_in_company(musicgen: Server) -> None:
    song = {"description": DESCRIPTION, "seconds": 5, "seed": 3}
    (alone,) = musicgen.predict({**song, "output": "alone"})
    company = musicgen.predict(
        {"prompt": "something else", "seconds": 7}, {**song, "output": "in/company/"}, {"prompt": "drums", "seconds": 4}
    )
    assert company[1]["name"].startswith("in/company/")
    assert Path(alone["audio"]).read_bytes() == Path(company[1]["audio"]).read_bytes()
    assert Path(alone["audio"]).read_bytes() != Path(company[0]["audio"]).read_bytes()


def test_a_request_that_is_sent_again_finds_its_song(musicgen: Server) -> None:
    song = {"prompt": "once and for all", "seconds": 4}
    twice = musicgen.predict(song, song)
    made = musicgen.figure("melodify_audio_seconds_total")
    again = musicgen.predict(song)
    assert twice == again * 2
    assert musicgen.figure("melodify_audio_seconds_total") == made
    Path(again[0]["audio"]).write_bytes(b"damaged")
    assert musicgen.predict(song) == again
    assert soundfile.info(again[0]["audio"]).duration == 4


BAD: list[tuple[Any, str, str]] = [
    ({}, "instances", "required"),
    ([], "", "instance of PredictRequest"),
    ({"instances": []}, "instances", "at least 1"),
    ({"instances": {}}, "instances", "list"),
    ({"instances": [{"prompt": "x"}] * 6}, "instances", "at most 5"),
    ({"instances": [{"prompt": "x"}] * 400}, "instances", "at most 16"),
    ({"instances": ["x"]}, "instances[0]", "dict"),
    ({"instances": [{}]}, "instances[0]", "either a description or a prompt"),
    ({"instances": [{"prompt": "x", "description": DESCRIPTION}]}, "instances[0]", "either"),
    ({"instances": [{"prompt": "x"}, {"prompt": 7}]}, "instances[1].prompt", "string"),
    ({"instances": [{"prompt": " \u200b"}]}, "instances[0].prompt", "empty"),
    ({"instances": [{"prompt": "\ud800"}]}, "instances[0].prompt", "unicode"),
    ({"instances": [{"prompt": "word " * 1000}]}, "instances[0]", "at most 512 tokens"),
    ({"instances": [{"prompt": "x" * 7000}]}, "instances[0].prompt", "at most 6000"),
    ({"instances": [{"description": "jazz"}]}, "instances[0].description", "dictionary"),
    ({"instances": [{"description": {**DESCRIPTION, "bpm": 900}}]}, "instances[0].description.bpm", "260"),
    ({"instances": [{"description": {**DESCRIPTION, "genre": "polka"}}]}, "instances[0].description.genre", "polka"),
    ({"instances": [{"prompt": "x", "seconds": 3}]}, "instances[0].seconds", "greater than or equal to 4"),
    ({"instances": [{"prompt": "x", "seconds": "20"}]}, "instances[0].seconds", "number"),
    ({"instances": [{"prompt": "x", "seconds": True}]}, "instances[0].seconds", "number"),
    ({"instances": [{"prompt": "x", "seed": 1.5}]}, "instances[0].seed", "integer"),
    ({"instances": [{"prompt": "x", "seed": -1}]}, "instances[0].seed", "greater"),
    ({"instances": [{"prompt": "x", "seed": True}]}, "instances[0].seed", "integer"),
    ({"instances": [{"prompt": "x", "seed": 10**400}]}, "instances[0].seed", "less"),
    ({"instances": [{"prompt": "x", "seed": 1e18}]}, "instances[0].seed", "lost digits"),
    ({"instances": [{"prompt": "x", "colour": 1}]}, "instances[0].colour", "not permitted"),
    ({"instances": [{"prompt": "x"}], "parameters": {"timeout_s": 51}}, "parameters.timeout_s", "at most 50 s"),
    ({"instances": [{"prompt": "x"}], "parameters": {"timeout_s": 0}}, "parameters.timeout_s", "greater than 0"),
    ({"instances": [{"prompt": "x"}], "parameters": []}, "parameters", "dict"),
    *(
        ({"instances": [{"prompt": "x", "output": output}]}, "instances[0].output", "")
        for output in (
            "/etc",
            "../x",
            "a/../../x",
            "",
            "a//b",
            ".hidden",
            "gs://other/x",
            "x\x00y",
            "ä" * 200,
            7,
            "\ud800",
        )
    ),
    (b"", "", "not JSON"),
    (b"{", "", "not JSON"),
    (b"\xff\xfe\xfd", "", "not JSON"),
    (b'{"instances": [{"prompt": "x", "seconds": NaN}]}', "instances[0].seconds", "finite"),
    (b'{"instances": [{"prompt": "x", "seconds": 1e999}]}', "instances[0].seconds", ""),
    (b'{"instances": [{"prompt": "x", "prompt": "y"}]}', "", "stands twice"),
    (b"[" * 100_000, "", "not JSON"),
    (b'{"instances": [' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"]}", "instances[0].a", "not permitted"),
]


def test_what_cannot_be_made_is_refused_by_field(musicgen: Server) -> None:
    before = sorted(musicgen.store.rglob("*"))
    for body, field, said in BAD:
        answer = musicgen.post(body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, 400), (body, error)
        assert error.get("field", "") == field, (body, error)
        assert said in error["message"], (body, error)
        assert "Traceback" not in answer.text
        assert str(ROOT) not in answer.text
        assert len(answer.content) < 1000
    assert sorted(musicgen.store.rglob("*")) == before
    assert musicgen.health() == 200


def test_other_errors_are_json_too(musicgen: Server) -> None:
    large = musicgen.post(b'{"instances": [{"prompt": "' + b"x" * 2_000_000 + b'"}]}')
    chunked = requests.post(musicgen.url + PREDICT, iter([b"x" * 500_000] * 4), timeout=20)
    for answer, status in (
        (large, 413),
        (chunked, 413),
        (requests.get(musicgen.url + "/nowhere", timeout=10), 404),
        (requests.get(musicgen.url + PREDICT, timeout=10), 405),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == status
    assert "1,500,000" in large.json()["error"]["message"]


def test_a_full_queue_refuses_and_clients_who_leave_make_room(musicgen: Server) -> None:
    clients = [musicgen.open({"instances": [{**LONG, "seed": seed}]}) for seed in range(5)]
    musicgen.wait_for(lambda: musicgen.figure("melodify_songs_playing") == 2)
    assert musicgen.figure("melodify_songs_waiting") == 3
    answer = musicgen.post({"instances": [{"prompt": "one too many"}]})
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "5 songs" in answer.json()["error"]["message"]
    for client in clients:
        client.close()
    musicgen.wait_for(
        lambda: musicgen.figure("melodify_songs_playing") + musicgen.figure("melodify_songs_waiting") == 0
    )
    musicgen.predict({"prompt": "there is room again", "seconds": 4})
    assert musicgen.figure('melodify_requests_total{status="499"}') == 5
    assert not [name for name in FolderStore(musicgen.store).list() if b'"300' in FolderStore(musicgen.store).get(name)]


def test_a_request_ends_at_its_deadline_and_frees_its_place(musicgen: Server) -> None:
    began = time.monotonic()
    answer = musicgen.post({"instances": [LONG], "parameters": {"timeout_s": 0.5}})
    assert answer.status_code == 504
    assert "timeout_s" in answer.json()["error"]["message"]
    assert 0.5 <= time.monotonic() - began < 5
    musicgen.wait_for(lambda: musicgen.figure("melodify_songs_playing") == 0)


def test_of_500_at_once_each_gets_an_answer(musicgen: Server) -> None:
    async def ask(number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", musicgen.port)
        body = json.dumps({"instances": [{"prompt": f"song {number}", "seconds": 4}]}).encode()
        writer.write(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode())
        writer.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        assert b"Retry-After: " in answer or b'"audio"' in answer
        return int(answer.split()[1])

    async def ask_all() -> list[int]:
        return list(await asyncio.gather(*(ask(number) for number in range(500))))

    with ThreadPoolExecutor(1) as pool:
        statuses = pool.submit(asyncio.run, ask_all())
        health = [musicgen.health()]
        while not statuses.done():
            health.append(musicgen.health())
    assert set(statuses.result()) == {200, 503}
    assert set(health) == {200}
    assert whole(musicgen) >= statuses.result().count(200)


def test_a_client_that_stalls_is_told_so_and_lets_go_of_its_thread(musicgen: Server) -> None:
    client = socket.create_connection(("127.0.0.1", musicgen.port), timeout=20)
    client.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert read_answer(client)[0] == 408


def test_a_store_that_fails_is_an_answer_and_leaves_nothing_half_written(musicgen: Server) -> None:
    song = {"prompt": "no room on the disk", "seconds": 4, "output": "full"}
    before = whole(musicgen)
    worker, (_, most) = musicgen.worker, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (10_000, most))
    try:
        answer = musicgen.post({"instances": [song]})
    finally:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (most, most))
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert "could not be stored" in answer.json()["error"]["message"]
    assert str(musicgen.store) not in answer.text
    assert not [path for path in (musicgen.store / "full").rglob("*") if path.is_file()]
    (musicgen.store / "a-file").write_text("in the way")
    assert musicgen.post({"instances": [{**song, "output": "a-file/x"}]}).status_code == 503
    musicgen.predict(song)
    assert whole(musicgen) == before + 1
    assert musicgen.worker == worker


def test_logs_are_json_with_the_trace_of_the_request(musicgen: Server) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    musicgen.post({"instances": [{"prompt": "traced", "seconds": 4}]}, traceparent=f"00-{trace}-b7ad6b7169203331-01")
    musicgen.post(b"{", **{"X-Cloud-Trace-Context": f"{trace[::-1]}/123;o=1"})
    musicgen.post(b"{", traceparent='00-"}, "injected": "{-b7ad6b7169203331-01')
    *_, made, refused, odd = [line for line in musicgen.lines() if "httpRequest" in line]
    assert made["logging.googleapis.com/trace"] == trace
    assert (made["severity"], made["httpRequest"]["status"]) == ("INFO", 200)
    assert refused["logging.googleapis.com/trace"] == trace[::-1]
    assert "not JSON" in refused["message"]
    assert "logging.googleapis.com/trace" not in odd
    assert all({"severity", "message", "time"} <= line.keys() for line in musicgen.lines())


def test_metrics_say_what_happened(musicgen: Server) -> None:
    before = {name: musicgen.figure(name) for name in FIGURES}
    musicgen.predict({"prompt": "counted", "seconds": 5})
    after = {name: musicgen.figure(name) - before[name] for name in FIGURES}
    assert after == dict.fromkeys(FIGURES, 1) | {"melodify_audio_seconds_total": 5}
    assert musicgen.figure("melodify_ready") == 1


FIGURES = ('melodify_requests_total{status="200"}', "melodify_audio_seconds_total", "melodify_song_seconds_count")


def test_a_killed_worker_is_replaced_and_leaves_nothing_half_written(musicgen: Server) -> None:
    before, worker = whole(musicgen), musicgen.worker
    client = musicgen.open({"instances": [LONG]})
    musicgen.wait_for(lambda: musicgen.figure("melodify_songs_playing") == 1)
    os.kill(worker, signal.SIGKILL)
    assert client.recv(1) == b""
    client.close()
    musicgen.wait_for(lambda: musicgen.health() == 200)
    assert musicgen.worker != worker
    assert whole(musicgen) == before
    musicgen.predict({"prompt": "life goes on", "seconds": 4})


def test_sigterm_lets_songs_finish_or_hands_them_back(checkpoint: Path, tmp_path: Path) -> None:
    settings = {"musician": "musicgen", "checkpoint": checkpoint, "songs": 3, "waiting": 2, "grace": 8}
    with server(tmp_path, **settings) as running:
        long = [running.open({"instances": [{**LONG, "seed": seed}]}) for seed in range(2)]
        short = running.open({"instances": [{"prompt": "short", "seconds": 6}]})
        running.wait_for(lambda: running.figure("melodify_songs_playing") == 3)
        waiting = running.open({"instances": [LONG]})
        running.wait_for(lambda: running.figure("melodify_songs_waiting") == 1)
        began = time.monotonic()
        running.process.terminate()
        running.wait_for(lambda: running.health() == 503)
        status, headers, _ = read_answer(waiting)  # at once: its turn would not come
        assert (status, "retry-after" in headers) == (503, True)
        answer = running.post({"instances": [{"prompt": "too late"}]})
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        status, _, body = read_answer(short)
        assert status == 200
        assert soundfile.info(body["predictions"][0]["audio"]).duration == 6
        for client in long:
            status, headers, body = read_answer(client)
            assert (status, "retry-after" in headers) == (503, True)
            assert "hands the request back" in body["error"]["message"]
        assert running.process.wait(10) == 0
        assert 3 < time.monotonic() - began < 15
    assert whole(running) == 1


def test_the_checkpoint_may_lie_in_a_bucket(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cloud = {"allow_paid": True, "project": "melodify", "access_token": "anybody"}
    with bucket.gcs() as url:
        with closing(bucket.client(url)) as storage:
            for path in checkpoint.glob("*.*"):
                if path.is_file():
                    storage.bucket(bucket.BUCKET).blob(f"model/{path.name}").upload_from_filename(path)
        settings = {"storage_uri": f"gs://{bucket.BUCKET}/model", "musician": "musicgen", "gcs_base_url": url, **cloud}
        with server(tmp_path, **settings) as running:
            (prediction,) = running.predict({"prompt": "from a bucket", "seconds": 4})
    card = json.loads(Path(prediction["card"]).read_text())
    assert "+model@" in card["musician"]["version"]


@pytest.fixture(scope="module")
def bucketed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Proxy, GcsStore]]:
    """A server with its store in a bucket, what stands between them, and the store as others see it."""
    cloud = {"allow_paid": True, "project": "melodify", "access_token": "anybody", "store": f"gs://{bucket.BUCKET}/x"}
    with bucket.gcs() as url, Proxy(url) as proxy:
        folder = tmp_path_factory.mktemp("bucketed")
        with server(folder, musician="arranger", songs=2, gcs_base_url=proxy.url, **cloud) as running:
            yield running, proxy, GcsStore(Settings(gcs_base_url=url, **cloud))
            proxy.faults = []


def songs(store: GcsStore, prediction: dict[str, Any]) -> dict[str, bytes]:
    """The files of a song, which are whole."""
    prefix = f"{prediction['name']}/"
    assert prediction["card"] == store.address(f"{prefix}card.json")
    return get_all(store, prefix, TrackCard.from_json(store.get(f"{prefix}card.json")).files)


def test_songs_are_kept_in_a_bucket_and_found_there(bucketed: tuple[Server, Proxy, GcsStore]) -> None:
    running, _, store = bucketed
    song = {"prompt": PROMPT, "seconds": 4}
    (prediction,) = running.predict(song)
    assert set(songs(store, prediction)) == {"track.wav", "track.mid"}
    made = running.figure("melodify_audio_seconds_total")
    assert running.predict(song) == [prediction] and running.figure("melodify_audio_seconds_total") == made


@pytest.mark.parametrize("uploads", [0, 2], ids="after {} uploads".format)
@pytest.mark.parametrize("fault", [{"status": 403}, {"status": 503}, "reset"], ids=str)
def test_an_outage_of_the_bucket_is_an_answer_and_leaves_no_song_half_there(
    bucketed: tuple[Server, Proxy, GcsStore], fault: Any, uploads: int
) -> None:
    running, proxy, store = bucketed
    song = {
        "prompt": PROMPT,
        "seconds": 4,
        "output": f"outage/{uploads}/{fault if fault == 'reset' else fault['status']}",
    }
    seen = []

    def fail(method: str, path: str) -> Any:
        seen.extend([path] if method == "POST" else [])
        return fault if not uploads or len(seen) > uploads else None

    proxy.faults = [fail] * 100
    answer = running.post({"instances": [song], "parameters": {"timeout_s": 3}})
    assert answer.status_code == 503 and "Retry-After" in answer.headers
    assert "could not be stored" in answer.json()["error"]["message"] and "127.0.0.1" not in answer.text
    assert not [name for name in store.list(song["output"]) if name.endswith("card.json")]
    proxy.faults = []
    (prediction,) = running.predict(song)
    assert songs(store, prediction) and running.health() == 200


def test_a_song_that_the_store_takes_long_for_holds_no_other_up(bucketed: tuple[Server, Proxy, GcsStore]) -> None:
    running, proxy, store = bucketed
    go_on = threading.Event()
    before = proxy.hit
    proxy.faults = [lambda method, path: go_on if method == "POST" else None]
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(running.predict, {"prompt": PROMPT, "seconds": 4, "output": "slow"})
        running.wait_for(lambda: proxy.hit > before)
        try:
            (other,) = running.predict({"prompt": PROMPT, "seconds": 4, "output": "other"})
            assert songs(store, other) and not slow.done()
        finally:
            go_on.set()
        assert songs(store, slow.result()[0])


def test_an_idle_server_ends_at_once_and_health_comes_before_readiness(tmp_path: Path) -> None:
    spec = find_spec("pretty_midi")
    assert spec is not None
    assert spec.origin is not None
    os.mkfifo(tmp_path / "font.sf2")
    settings = {"musician": "arranger", "soundfont": tmp_path / "font.sf2"}
    with server(tmp_path, ready=False, **settings) as running:
        running.wait_for(lambda: running.health() != 0)
        assert running.health() == 503  # the font has not been read: nobody has written it
        assert image_health(running) == 1
        answer = running.post({"instances": [{"description": DESCRIPTION}]})
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        with (tmp_path / "font.sf2").open("wb") as pipe:
            (tmp_path / "font").symlink_to(Path(spec.origin).parent / "TimGM6mb.sf2")
            (tmp_path / "font").rename(tmp_path / "font.sf2")
            pipe.write((tmp_path / "font.sf2").read_bytes()[:12])
        running.wait_for(lambda: running.health() == 200)
        assert image_health(running) == 0
        began = time.monotonic()
        running.process.terminate()
        assert running.process.wait(10) == 0
        assert time.monotonic() - began < 5


def test_a_server_that_cannot_load_ends_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with server(tmp_path, ready=False, musician="musicgen", checkpoint=tmp_path / "empty") as running:
        assert running.process.wait(20) != 0
    (said,) = [line for line in running.lines() if line["severity"] == "CRITICAL"]
    assert "is not a whole MusicGen checkpoint" in said["message"]
    assert "Traceback" not in said["message"]


def test_the_command_line_serves_the_arranger_without_weights(tmp_path: Path) -> None:
    melodify = str(Path(sys.executable).with_name("melodify"))
    with server(tmp_path, [melodify, "serve", "--musician", "arranger", "--threads", "60"], grace=5) as running:
        assert COMMAND[1:] == tuple(Path(f"/proc/{running.process.pid}/cmdline").read_text().split("\0")[1:5])
        one, two = running.predict(
            {"description": DESCRIPTION, "seconds": 6}, {"prompt": PROMPT, "seconds": 4, "seed": 1}
        )
        for prediction, seconds in ((one, 6), (two, 4)):
            assert soundfile.info(prediction["audio"]).duration == pytest.approx(seconds, abs=0.5)
            assert Path(prediction["midi"]).read_bytes().startswith(b"MThd")
            assert TrackCard.from_json(Path(prediction["card"]).read_bytes()).musician.name == "arranger"
        refused = running.post({"instances": [{"prompt": "in my own words"}]})
        assert refused.status_code == 400
        assert "description" in refused.json()["error"]["message"]
        client = running.open({"instances": [{"prompt": PROMPT, "seconds": 300}]})
        running.wait_for(lambda: running.figure("melodify_songs_playing") == 1)
        began = time.monotonic()
        assert [running.health() for _ in range(20)] == [200] * 20
        client.close()
        running.wait_for(lambda: running.figure("melodify_songs_playing") == 0)
        assert time.monotonic() - began < 5  # the song would have taken longer, and the health checks with it
        client = running.open({"instances": [{"prompt": PROMPT, "seconds": 300}]})
        running.wait_for(lambda: running.figure("melodify_songs_playing") == 1)
        running.process.terminate()
        assert read_answer(client)[0] == 503
        assert running.process.wait(5) == 0
    assert whole(running) == 2  # what nobody waited for was not stored
    assert running.lines()
    refused = subprocess.run([melodify, "serve", "--threads", "10"], capture_output=True, text=True, check=False)
    assert (refused.returncode, "too few" in refused.stderr) == (1, True)


def test_the_image_runs_the_command_that_is_tested_here() -> None:
    lines = re.sub(r"\\\n", " ", (ROOT / "serving/Dockerfile").read_text()).splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    assert json.loads([text for name, text in instructions if name == "CMD"][-1]) == list(COMMAND)
    assert not [text for name, text in instructions if "AIP_" in text]
    assert [text for name, text in instructions if name == "USER"] == ["10001"]
    stages = {text.split(" AS ")[1] for name, text in instructions if name == "FROM" and " AS " in text}
    assert {"cpu", "cuda"} <= stages
    assert instructions[0] == ["ARG", "DEVICE=cpu"]
    for name, text in instructions:
        if name == "COPY" and not text.startswith("--from"):
            assert all((ROOT / source).exists() for source in shlex.split(text)[:-1]), text
    kept = {line[1:] for line in (ROOT / "serving/Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    (health,) = [json.loads(text.split("CMD ")[1]) for name, text in instructions if name == "HEALTHCHECK"]
    assert health == ["python", "-m", "serving.health"]
    copied = {
        part for name, text in instructions if name == "COPY" and "--from" not in text for part in text.split()[:-1]
    }
    assert copied == kept


@pytest.mark.parametrize(
    ("header", "value", "trace"),
    [
        ("Traceparent", f"00-{'a' * 32}-{'b' * 16}-01", "a" * 32),
        ("Traceparent", f"00-{'0' * 32}-{'b' * 16}-01", ""),
        ("Traceparent", f"00-{'g' * 32}-{'b' * 16}-01", ""),
        ("X-Cloud-Trace-Context", "a" * 32, "a" * 32),
        ("X-Cloud-Trace-Context", f"{'A' * 32}/1;o=0", "a" * 32),
        ("X-Cloud-Trace-Context", f"{'a' * 31}/1", ""),
    ],
)
def test_only_valid_traces_are_taken(header: str, value: str, trace: str) -> None:
    assert trace_of({header: value}) == trace


def image_health(running: Server) -> int:
    """Exit code of the image's HEALTHCHECK."""
    environment = {**os.environ, "AIP_HTTP_PORT": str(running.port), "AIP_HEALTH_ROUTE": HEALTH}
    return subprocess.run([sys.executable, "-m", "serving.health"], env=environment, cwd=ROOT, check=False).returncode


def whole(running: Server) -> int:
    """Songs in the store. Each object is whole: a card's files are what it says, and no other audio is there."""
    store = FolderStore(running.store)
    names = set(store.list())
    cards = {name for name in names if name.endswith("/card.json")}
    for card in cards:
        for file, known in json.loads(store.get(card))["files"].items():
            assert sha256(store.get(card.removesuffix("card.json") + file)) == known
    assert {name.rpartition("/")[0] for name in names if name.endswith(".wav")} == {
        card.rpartition("/")[0] for card in cards
    }
    return len(cards)


def test_a_process_for_notebooks_and_benchmarks(tmp_path: Path) -> None:
    settings = Settings(musician="arranger", store=tmp_path / "store")
    with running(settings) as process:
        status, answer = process.predict({"prompt": PROMPT, "seconds": 4}, seed=3)
        assert status == 200
        assert Path(answer["predictions"][0]["audio"]).is_relative_to(tmp_path / "store")
        assert process.predict({"prompt": PROMPT, "seconds": 0})[0] == 400
        assert process.metrics()["melodify_requests_total 200"] == 1
    assert process.process.returncode == 0
    with (
        pytest.raises(ModelError, match="is not a whole MusicGen checkpoint"),
        running(Settings(musician="musicgen", checkpoint=str(tmp_path))),
    ):
        pass


def test_a_long_key_of_the_clients_own_is_not_given_back(musicgen: Server) -> None:
    answer = musicgen.post({"instances": [{"prompt": PROMPT, "é" * 200_000: 1}]})
    assert answer.status_code == 400 and len(answer.content) < 10_000


@pytest.mark.parametrize("part", ["0123456789abcdef", "track.wav", "card.json"])
def test_a_folder_that_could_stand_in_a_songs_way_is_refused(musicgen: Server, part: str) -> None:
    answer = musicgen.post({"instances": [{"prompt": PROMPT, "output": f"songs/{part}"}]})
    assert answer.status_code == 400 and "choose another" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n"])
def test_a_malformed_chunked_body_is_the_clients_fault(musicgen: Server, body: bytes) -> None:
    with socket.create_connection(("127.0.0.1", musicgen.port), timeout=20) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert read_answer(connection)[0] == 400


def test_a_process_whose_songs_all_fail_makes_room_for_another(untrained: dict[str, Path], tmp_path: Path) -> None:
    """EnCodec's bias is no number: it loads, and no song can be made."""
    broken = tmp_path / "broken"
    shutil.copytree(untrained["mono"], broken, ignore=shutil.ignore_patterns("onnx-*", ".preparing*"))
    weights = load_file(broken / "model.safetensors")
    weights["audio_encoder.decoder.layers.0.conv.bias"][:] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with server(tmp_path / "server", musician="musicgen", checkpoint=broken, grace=5) as running:
        worker = running.worker

        def workers() -> list[int]:
            return [child.pid for child in psutil.Process(running.process.pid).children()]

        for seed in range(3):
            answer = running.post({"instances": [{"prompt": PROMPT, "seconds": 4, "seed": seed}]})
            assert answer.status_code == 500, answer.text
        running.wait_for(lambda: workers() not in ([], [worker]), 30)
        running.wait_for(lambda: running.health() == 200, 30)
    said = [line["message"] for line in running.lines()]
    assert any("EnCodec gives no numbers" in message for message in said)
    assert any("another process takes over" in message for message in said)


def test_clients_that_do_not_close_their_side_hold_nobody_up(musicgen: Server) -> None:
    body = {"instances": []}
    connections = [musicgen.open(body) for _ in range(12)]
    for connection in connections:
        connection.recv(1)  # it is answered, and waits for us to close
    started = time.monotonic()
    assert musicgen.health() == 200
    assert time.monotonic() - started < 1
    for connection in connections:
        connection.close()
