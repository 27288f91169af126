"""Many pictures, on kfp.local."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from emulators import gcs
from emulators.cloud import Cloud
from melodify_lib import batch
from melodify_lib.errors import BudgetError, InputError, PipelineError, SettingsError
from melodify_lib.image import open_image
from melodify_lib.samples import SAMPLES, sample_picture
from melodify_lib.settings import Settings
from melodify_lib.store import FolderStore
from pipelines import vertex
from pipelines.batch import compile_batch, run_batch

PRINT = print


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertex, "POLL_S", 0.02)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, and two that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    names = list(SAMPLES)
    for number in range(12):
        image = open_image(sample_picture(names[number % len(names)])).rotate(90 * (number // len(names)), expand=True)
        image.save(folder / f"picture {number:02}.png")
    (folder / "hostile.jpg").write_bytes(b"<svg onload=alert(1)>")
    (folder / "cut.png").write_bytes((folder / "picture 00.png").read_bytes()[:5_000])
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_every_picture_has_its_song_or_a_reason_and_a_second_run_makes_nothing(pictures: Path, tmp_path: Path) -> None:
    settings = Settings.load(store=tmp_path / "store")
    first = {one.picture: one for one in run_batch(str(pictures), settings, seconds=4, seed=1, per_task=5)}
    assert len(first) == 14
    assert {name for name, one in first.items() if one.state == "failed"} == {"hostile.jpg", "cut.png"}
    assert "it looks like" in first["hostile.jpg"].error and "cut off" in first["cut.png"].error
    made = [one for one in first.values() if one.state == "made"]
    assert len(made) == 12 and all(Path(one.song).is_file() for one in made)

    store = FolderStore(tmp_path / "store")
    before = {name: store.get(name) for name in store.list("songs/")}
    again = run_batch(str(pictures), settings, seconds=4, seed=1, per_task=5)
    assert sorted(one.state for one in again) == ["failed"] * 2 + ["found"] * 12
    Path(made[0].song).write_bytes(b"RIFF")
    third = {one.picture: one.state for one in run_batch(str(pictures), settings, seconds=4, seed=1, per_task=5)}
    assert third[made[0].picture] == "made" and list(third.values()).count("found") == 11
    assert before == {name: store.get(name) for name in before}
    assert builtins.print is PRINT  # kfp.local puts its own in its place


def test_what_paid_models_would_cost_is_said_and_must_fit_into_the_budget(pictures: Path, tmp_path: Path) -> None:
    settings = Settings.load(store=tmp_path, captioner="openai", describer="gemini", musician="lyria")
    events: list[str] = []
    for budget, says in ((None, "--budget DOLLARS"), (0.84, r"the budget is \$0\.84")):
        with pytest.raises(BudgetError, match=rf"14 pictures by gpt.*, gemini.*, lyria-002 would cost .*{says}"):
            run_batch(str(pictures), settings, budget=budget, on_event=events.append)
    assert "about $0.86" in events[0] and not list(tmp_path.iterdir())


def test_a_run_that_was_killed_makes_only_the_rest(pictures: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "MELODIFY_STORE": str(tmp_path / "store")}
    command = [sys.executable, "-c", "from melodify_lib.cli import main; main()"]
    command += ["pipeline", "batch", str(pictures), "--seconds", "4", "--per-task", "3", "--json"]
    killed = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "store" / "batch").glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    states = [one["state"] for one in json.loads(done.stdout)]
    assert done.returncode == 1 and states.count("found") >= 2 and states.count("made") >= 1
    assert states.count("found") + states.count("made") == 12


def test_what_is_no_folder_of_pictures_is_said(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"list-pictures.*no pictures"):
        run_batch(str(tmp_path), Settings.load(store=tmp_path / "store"))
    with pytest.raises(InputError, match="no pictures"):
        batch.list_pictures(Settings.load(), str(tmp_path / "nothing"))


def test_pictures_may_lie_in_a_bucket(pictures: Path, tmp_path: Path) -> None:
    with gcs.gcs() as url:
        client = gcs.client(url)
        for name in ("picture 00.png", "hostile.jpg", "notes.txt"):
            client.bucket(gcs.BUCKET).blob(f"in/{name}").upload_from_filename(pictures / name)
        client.close()
        cloud = {"allow_paid": True, "project": "melodify", "access_token": "t", "gcs_base_url": url}
        settings = Settings.load(store=tmp_path / "store", **cloud)
        where = f"gs://{gcs.BUCKET}/in"
        names = batch.list_pictures(settings, where)
        assert names == ["hostile.jpg", "picture 00.png"]
        states = [one.state for one in batch.compose_all(settings, where, names, seconds=4, seed=0)]
        assert states == ["failed", "made"]


def test_the_spec_has_bounded_parallelism_and_no_cache(tmp_path: Path) -> None:
    spec = yaml.safe_load(compile_batch(tmp_path / "batch.yaml", parallel=3).read_text())
    tasks = spec["root"]["dag"]["tasks"]
    (loop,) = [task for task in tasks.values() if "iteratorPolicy" in task]
    assert loop["iteratorPolicy"] == {"parallelismLimit": 3}
    inner = spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
    assert inner["compose-pictures"]["retryPolicy"]["maxRetryCount"] == 2
    every = [*(task for task in tasks.values() if task is not loop), *inner.values()]
    assert len(every) == 3 and not any(task["cachingOptions"].get("enableCache") for task in every)


def test_a_picture_that_breaks_the_program_fails_alone(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.load(store=tmp_path / "store")
    composed = batch.Composer.compose

    def compose(self: batch.Composer, image: bytes, **options: Any) -> Any:
        if image == (pictures / "picture 00.png").read_bytes():
            raise MemoryError("no room")
        return composed(self, image, **options)

    monkeypatch.setattr(batch.Composer, "compose", compose)
    names = ["picture 00.png", "picture 01.png"]
    failed, made = batch.compose_all(settings, str(pictures), names, seconds=4, seed=0)
    assert (failed.state, failed.error, made.state) == ("failed", "MemoryError: no room", "made")
    assert "picture 00.png" in caplog.text and "Traceback" in caplog.text


CHOSEN = {"MELODIFY_CAPTIONER": "local", "MELODIFY_DESCRIBER": "local"}


def upload(gcp: Cloud, pictures: Path, folder: str, names: list[str]) -> str:
    client = gcs.client(gcp.environment["MELODIFY_GCS_BASE_URL"])
    for name in names:
        client.bucket(gcs.BUCKET).blob(f"{folder}/{name}").upload_from_filename(pictures / name)
    client.close()
    return f"gs://{gcs.BUCKET}/{folder}"


def jobs(gcp: Cloud) -> int:
    return sum(one.method == "POST" and one.path.endswith("/pipelineJobs") for one in gcp.vertex.log)


def test_on_vertex_ai_every_picture_of_a_bucket_has_its_song_or_a_reason(
    gcp: Cloud, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from melodify_lib.describe.local import SHIPPED

    for name, value in CHOSEN.items():
        monkeypatch.setenv(name, value)
    names = ["picture 00.png", "picture 01.png", "picture 02.png", "hostile.jpg", "cut.png"]
    where = upload(gcp, pictures, "in", names)
    settings, events = Settings.load(describer_model=SHIPPED), []
    options: dict[str, Any] = {"seconds": 4, "seed": 1, "per_task": 3, "on_event": events.append}
    first = {one.picture: one for one in run_batch(where, settings, **options)}
    assert {name: first[name].state for name in names} == {
        **dict.fromkeys(names[:3], "made"),
        **dict.fromkeys(names[3:], "failed"),
    }
    assert all(first[name].song.startswith("gs://melodify/songs/") for name in names[:3])
    assert events[0].startswith("submitted: ") and events[-1] == "collect-results: done"
    assert sum(one.startswith("compose-pictures: running; log: https://") for one in events) == 2
    assert sum(one == "compose-pictures: done" for one in events) == 2

    upload(gcp, pictures, "in", ["picture 03.png"])
    again = {one.picture: one.state for one in run_batch(where, settings, **options)}
    assert again == {
        **dict.fromkeys(names[:3], "found"),
        **dict.fromkeys(names[3:], "failed"),
        "picture 03.png": "made",
    }
    assert jobs(gcp) == 2


def test_on_vertex_ai_a_killed_client_finds_its_job_and_the_next_run_finds_all_songs(
    gcp: Cloud, pictures: Path
) -> None:
    where = upload(gcp, pictures, "killed", ["picture 04.png", "picture 05.png"])
    command = [sys.executable, "-c", "from melodify_lib.cli import main; main()"]
    command += ["pipeline", "batch", where, "--seconds", "4", "--per-task", "1", "--json"]
    environment = {**os.environ, **CHOSEN}
    client = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not jobs(gcp):
        time.sleep(0.02)
    client.send_signal(signal.SIGKILL)
    client.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert jobs(gcp) == 1 and "submitted before" in done.stderr
    assert [one["state"] for one in json.loads(done.stdout)] == ["made", "made"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert jobs(gcp) == 2 and [one["state"] for one in json.loads(done.stdout)] == ["found", "found"]


def test_on_vertex_ai_openais_key_comes_from_secret_manager(
    gcp: Cloud, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = upload(gcp, pictures, "secret", ["picture 06.png"])
    (made,) = run_batch(where, Settings.load(), seconds=4, budget=0.01)
    assert made.state == "made" and any(one.path.endswith("/responses") for one in gcp.openai.served())
    (job,) = list(gcp.vertex.pipeline_jobs.values())[-1:]
    assert gcp.environment["MELODIFY_OPENAI_API_KEY"] not in json.dumps(job)
    with pytest.raises(SettingsError, match="MELODIFY_OPENAI_SECRET"):
        run_batch(where, Settings.load(openai_secret=""))


def test_vertex_ai_does_not_see_a_folder_of_this_machine(gcp: Cloud, pictures: Path) -> None:
    with pytest.raises(InputError, match="gcloud storage cp"):
        run_batch(str(pictures), Settings.load())
    assert not jobs(gcp)
