"""The pipeline on Vertex AI, with the real clients against a server on this machine that executes what it is sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from emulators.cloud import Cloud
from melodify_lib import logs
from melodify_lib.cloud import retry
from melodify_lib.errors import CloudError, InputError, PipelineError, SettingsError
from melodify_lib.flow import Composer
from melodify_lib.settings import Settings
from melodify_lib.store import name_in, open_store
from pipelines import vertex
from pipelines.graph import music_pipeline, resources_for, spec_of
from pipelines.run import Run, arguments, run

ALL = ["load-describer", "rework-caption", "play-and-store"]
CHOSEN = {"captioner": "local", "describer": "local"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertex, "POLL_S", 0.02)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.5)


def made(photograph: Path, seed: int, request: str = "", **more: Any) -> tuple[Run, list[str]]:
    settings = Settings.load(**{**CHOSEN, **more})
    events: list[str] = []
    parameters = arguments(photograph, settings, seconds=4, seed=seed)
    return run(parameters, settings, request=request, on_event=events.append), events


def ordered(gcp: Cloud) -> int:
    return sum(one.method == "POST" and one.path.endswith("/pipelineJobs") for one in gcp.vertex.log)


def test_the_same_song_comes_out_as_here(gcp: Cloud, photograph: Path, composer: Composer, tmp_path: Path) -> None:
    with logs.tracing() as trace:
        there, events = made(photograph, 1)
    assert there.card == composer.compose(photograph, seconds=4, seed=1).card
    assert there.card_address.startswith("gs://melodify/songs/") and there.tasks == dict.fromkeys(ALL, "done")
    assert events[0].startswith("submitted: ") and events[-1] == "play-and-store: done"
    assert "https://console.cloud.google.com/vertex-ai/locations/us-central1/pipelines/runs/" in events[0]
    (started,) = [one for one in events if one.startswith("play-and-store: running")]
    assert "log: https://console.cloud.google.com/logs/query;query=" in started
    there.save(tmp_path)
    assert (tmp_path / "track.wav").read_bytes() == there.files["track.wav"]
    (job,) = [job for job in gcp.vertex.pipeline_jobs.values() if job["name"] in events[0]]
    assert set(job["labels"]) == {"melodify-run", "melodify-request", "melodify-expires"}
    assert job["labels"]["melodify-run"] == trace
    assert gcp.environment["MELODIFY_ACCESS_TOKEN"] not in json.dumps(job)
    assert job["runtimeConfig"]["failurePolicy"] == "PIPELINE_FAILURE_POLICY_FAIL_SLOW"


def test_a_request_is_one_job_and_another_hits_the_cache(gcp: Cloud, photograph: Path) -> None:
    first, _ = made(photograph, 2)
    again, events = made(photograph, 2)
    assert events[0].startswith("submitted before: ") and ordered(gcp) == 1 and again.card == first.card
    other, _ = made(photograph, 2, request="another")
    assert other.tasks == dict.fromkeys(ALL, "cached") and ordered(gcp) == 2 and other.card == first.card


def test_a_song_that_is_no_longer_whole_is_made_again(gcp: Cloud, photograph: Path) -> None:
    first, _ = made(photograph, 3)
    store = open_store(Settings.load())
    store.put(name_in(store, first.song), b"RIFF")
    again, _ = made(photograph, 3)
    assert again.files == first.files and store.get(name_in(store, first.song)) == first.files["track.wav"]
    assert again.tasks == dict.fromkeys(ALL, "done")
    for lost in range(2):
        store.delete(name_in(store, first.song))
        assert made(photograph, 3)[0].files == first.files and ordered(gcp) == 3 + lost
    assert made(photograph, 3)[0].files == first.files and ordered(gcp) == 4


def test_a_tuned_gemini_and_openai_are_asked_by_the_tasks(gcp: Cloud, photograph: Path) -> None:
    there, _ = made(photograph, 4, captioner="openai", describer="gemini")
    assert there.card.captioner is not None and there.card.captioner.name == "openai"
    assert there.card.describer is not None and there.card.describer.name == "gemini"
    assert any("generateContent" in one.path for one in gcp.vertex.log)


def test_musicgen_gets_the_machine_that_it_needs(gcp: Cloud, untrained: dict[str, Path]) -> None:
    settings = Settings.load(**CHOSEN, musician="musicgen", checkpoint=str(untrained["mono"]), device="cuda")
    executors = spec_of(music_pipeline(settings.image, resources_for(settings)))["deploymentSpec"]["executors"]
    given = executors["exec-play-and-store"]["container"]["resources"]
    assert (given["resourceCpuLimit"], given["accelerator"]["resourceType"]) == ("4", "NVIDIA_L4")
    assert "resources" not in executors["exec-rework-caption"]["container"]


def test_a_describer_in_a_folder_is_put_into_the_store(gcp: Cloud, photograph: Path) -> None:
    from melodify_lib.describe.local import SHIPPED

    there, _ = made(photograph, 5, describer_model=SHIPPED)
    assert there.card.describer is not None and there.card.describer.name == "local"
    assert len(open_store(Settings.load()).list("models/")) == sum(path.is_file() for path in SHIPPED.iterdir())


def test_a_failed_task_is_named_and_the_next_try_is_another_job(gcp: Cloud, photograph: Path) -> None:
    settings = Settings.load(**CHOSEN)
    parameters = {**arguments(photograph, settings, seconds=4, seed=6), "musician_version": "0"}
    for number in (1, 2):
        with pytest.raises(
            PipelineError, match=r"task 'play-and-store' failed: .*; what it logged: https://"
        ) as caught:
            run(parameters, settings)
        assert ordered(gcp) == number
        logged = unquote(str(caught.value)).partition('job_id="')[2].partition('"')[0]
        assert "submitted for 0" in gcp.vertex.task_logs[logged]


def test_a_client_that_is_killed_while_it_waits_finds_its_job_again(gcp: Cloud, photograph: Path) -> None:
    command = [sys.executable, "-c", "from melodify_lib.cli import main; main()"]
    command += ["pipeline", "run", str(photograph), "--seconds", "4", "--seed", "9"]
    environment = {**os.environ, "MELODIFY_CAPTIONER": "local", "MELODIFY_DESCRIBER": "local"}
    client = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not ordered(gcp):
        time.sleep(0.02)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert ordered(gcp) == 1 and "submitted before" in done.stderr
    assert json.loads(done.stdout)["song"].startswith("gs://melodify/songs/")


def test_an_interrupt_cancels_the_job(gcp: Cloud, photograph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(**CHOSEN)
    parameters = arguments(photograph, settings, seconds=4, seed=10)

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(vertex, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(parameters, settings)
    assert list(gcp.vertex.pipeline_jobs.values())[-1]["state"] == "PIPELINE_STATE_CANCELLING"
    before = ordered(gcp)
    vertex.cancel(vertex.submit(music_pipeline(), parameters, settings), settings)
    assert ordered(gcp) == before + 1, "a job that is being cancelled is no longer waited for"


def test_a_job_that_never_starts_is_not_waited_for_for_ever(
    gcp: Cloud, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vertex, "WAIT_S", 0.0)
    settings = Settings.load(**CHOSEN)
    parameters = arguments(photograph, settings, seconds=4, seed=11)
    with pytest.raises(PipelineError, match=r"goes on: the same command waits on.*https://"):
        run(parameters, settings)
    name = list(gcp.vertex.pipeline_jobs)[-1]
    assert vertex.submit(music_pipeline(settings.image), parameters, settings) == name
    vertex.cancel(name, settings)


def test_what_a_job_could_not_keep_is_refused_before_it_is_ordered(gcp: Cloud, photograph: Path) -> None:
    for wrong, seed, error, says in (
        ({"store": "songs"}, 0, SettingsError, "MELODIFY_STORE to a gs://"),
        ({}, 2**53, InputError, "seed must be below 2"),
    ):
        settings = Settings.load(**CHOSEN, **wrong)
        with pytest.raises(error, match=says):
            run(arguments(photograph, settings, seconds=4, seed=seed), settings)
    assert not ordered(gcp)


def test_what_is_missing_is_said_before_anything_is_ordered(gcp: Cloud, photograph: Path) -> None:
    for wrong, says in (({"image": ""}, "MELODIFY_IMAGE"), ({"runner": "airflow"}, "local, vertex")):
        settings = Settings.load(**CHOSEN).model_copy(update=wrong)
        with pytest.raises(SettingsError, match=says):
            run(arguments(photograph, settings, seconds=4), settings)
    assert not ordered(gcp)


def test_the_server_refuses_what_the_service_would(gcp: Cloud, photograph: Path) -> None:
    settings = Settings.load(**CHOSEN)
    parameters = arguments(photograph, settings, seconds=4)
    for wrong, says in (({"mood": "calm"}, "unknown parameter"), ({"seed": "seven"}, "no NUMBER_INTEGER")):
        with pytest.raises(CloudError, match=says):
            vertex.submit(music_pipeline(), {**parameters, **wrong}, settings)


def test_the_description_is_heard_before_the_song_is_made(gcp: Cloud, photograph: Path) -> None:
    settings, looks = Settings.load(**CHOSEN), []
    parameters = arguments(photograph, settings, seconds=4, seed=11, genre="folk")
    there = run(parameters, settings, on_look=lambda *look: looks.append(look))
    early = [description for states, description in looks if states["play-and-store"] == "running" and description]
    assert early and set(map(str, early)) == {str(there.card.description)}
