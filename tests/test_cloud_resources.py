"""What was made in the cloud, listed, priced and cleaned away, with the real clients."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from emulators.cloud import IMAGE, Cloud, cloud
from emulators.server import Reply
from melodify_lib.cloud import endpoints, resources, retry
from melodify_lib.dataset import read
from melodify_lib.settings import Settings
from melodify_lib.tuning import Plan, tuner
from melodify_lib.tuning import vertex as tuning
from pipelines import vertex
from pipelines.graph import music_pipeline
from pipelines.run import arguments

TRAIN = Path(__file__).parent.parent / "data" / "generate_jsonl" / "output" / "train.jsonl"
LATER = date(2100, 1, 1)


@pytest.fixture
def servers() -> Iterator[Cloud]:
    """New for each test, as what is there is counted."""
    with cloud() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (endpoints, vertex, tuning):
        monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.5)


def test_everything_that_was_made_is_listed_priced_and_cleaned(
    gcp: Cloud, photograph: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings.load(captioner="local", describer="local")
    model = endpoints.register(settings, IMAGE, environment=endpoints.container_environment(settings, "arranger"))
    endpoint, _ = endpoints.deploy(settings, model, machine_type="n1-standard-4")
    job = vertex.submit(music_pipeline(), arguments(photograph, settings, seconds=4), settings)
    vertex.wait(job, settings)
    lines = TRAIN.read_text("utf-8").splitlines(keepends=True)[::40]
    (tmp_path / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    assert len(read(tmp_path / "train.jsonl")) == len(lines)
    tuner(settings, Plan(budget=10)).tune(tmp_path / "train.jsonl", tmp_path / "describer")
    others = {"name": "projects/melodify/locations/us-central1/models/others", "displayName": "others", "labels": {}}
    gcp.vertex.models[others["name"]] = others  # type: ignore[index]

    found = resources.find(settings)
    assert [one.kind for one in found] == ["endpoint", "model", "pipeline job", "tuning job"]
    assert found[0].name == endpoint and found[0].dollars_an_hour == 0.219
    assert all(one.expires is not None and not one.is_expired() for one in found)
    assert resources.choose(found) == [] and resources.choose(found, today=LATER) == found
    (run,) = {one.run for one in found}
    assert resources.choose(found, run=run) == found and resources.choose(found, run="others") == []

    shown = _melodify("cloud", "list")
    assert "$0.219 an hour" in shown.stdout and "/".join(endpoint.split("/")[-2:]) in shown.stdout
    assert len(json.loads(_melodify("cloud", "list", "--json").stdout)) == 4
    before = len(gcp.vertex.endpoints), len(gcp.vertex.models), len(gcp.vertex.pipeline_jobs)
    dry = _melodify("cloud", "clean", "--all", "--dry-run")
    assert "would be deleted" in dry.stdout
    assert before == (len(gcp.vertex.endpoints), len(gcp.vertex.models), len(gcp.vertex.pipeline_jobs))
    assert "nothing to clean" in _melodify("cloud", "clean").stdout

    done = _melodify("cloud", "clean", "--all", "--yes")
    assert done.returncode == 0 and done.stdout.count("deleted") == 4
    assert not gcp.vertex.endpoints and list(gcp.vertex.models) == [others["name"]] and not gcp.vertex.pipeline_jobs
    assert not gcp.vertex.servers and resources.find(settings) == []


def test_what_cannot_be_deleted_is_left_and_said_and_the_rest_goes(gcp: Cloud) -> None:
    settings = Settings.load(captioner="local", describer="local")
    endpoints.register(settings, IMAGE)
    endpoints._endpoint(settings, _endpoint_client(settings), lambda text: None)
    gcp.vertex.fault = lambda request: (
        Reply(gcp.vertex.error(403, "no"), 403)
        if request.method == "DELETE" and "/endpoints/" in request.path
        else None
    )
    done = _melodify("cloud", "clean", "--all", "--yes")
    assert done.returncode == 1 and "not deleted" in done.stdout and "permissions" in done.stdout
    assert [one.kind for one in resources.find(settings)] == ["endpoint"]


def test_a_job_that_runs_is_cancelled_and_deleted_once_it_has_ended(gcp: Cloud, photograph: Path) -> None:
    settings = Settings.load(captioner="local", describer="local")
    vertex.submit(music_pipeline(), arguments(photograph, settings, seconds=300), settings)  # not done too soon
    assert [one.dollars_an_hour for one in resources.find(settings)] == [None]
    shown = _melodify("cloud", "list").stdout
    assert "unknown" in shown and "$0.000 and what is unknown an hour" in shown
    left = resources.clean(settings, resources.find(settings), lambda one, what: None)
    assert not left and not gcp.vertex.pipeline_jobs


def _endpoint_client(settings: Settings) -> object:
    from google.cloud.aiplatform_v1 import EndpointServiceClient

    from melodify_lib.cloud import clients

    return clients.vertex(settings, EndpointServiceClient)


def _melodify(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from melodify_lib.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
