"""Many pictures, on kfp.local."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from emulators import gcs
from melodify_lib import batch
from melodify_lib.errors import BudgetError, InputError, PipelineError
from melodify_lib.image import open_image
from melodify_lib.samples import SAMPLES, sample_picture
from melodify_lib.settings import Settings
from melodify_lib.store import FolderStore
from pipelines.batch import compile_batch, run_batch


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
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks.values() if task is not loop)
