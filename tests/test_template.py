"""A compiled pipeline goes into Artifact Registry by KFP's own client, against a server on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from emulators.server import HANG, Reply
from emulators.templates import TemplatesEmulator
from melodify_lib.cloud import retry
from melodify_lib.errors import CloudError, PaidError, PipelineError
from melodify_lib.settings import Settings
from pipelines.graph import compile_pipeline
from pipelines.template import _client, address, upload

TOKEN = "ya29.emulated-0123456789abcdefghij"
IMAGE = "us-docker.pkg.dev/melodify/melodify/serving-cpu@sha256:"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[TemplatesEmulator]:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "DEADLINE_S", 0.3)
    with TemplatesEmulator(TOKEN) as emulator:
        yield emulator


@pytest.fixture
def settings(registry: TemplatesEmulator) -> Settings:
    return Settings(allow_paid=True, project="melodify", access_token=TOKEN, templates_base_url=registry.url)


def uploads(registry: TemplatesEmulator) -> int:
    return len([request for request in registry.log if request.path == "/melodify/melodify-pipelines"])


def test_a_template_is_uploaded_once_and_tags_point_to_the_newest(
    registry: TemplatesEmulator, settings: Settings, tmp_path: Path
) -> None:
    one, two = (compile_pipeline(tmp_path / f"{n}.yaml", image=f"{IMAGE}{n}") for n in range(2))
    first = upload(one, settings, tags=["latest", "v1"])
    assert first == upload(one, settings, tags=["latest"]) and uploads(registry) == 1
    second = upload(two, settings, tags=["latest", "v2"])
    assert first != second and first.startswith(f"{registry.url}/melodify/melodify-pipelines/melodify-music/sha256:")
    digest = {name: where.rpartition("/")[2] for name, where in (("first", first), ("second", second))}
    assert registry.tags == {
        ("melodify-music", "latest"): digest["second"],
        ("melodify-music", "v1"): digest["first"],
        ("melodify-music", "v2"): digest["second"],
    }
    there = yaml.safe_load(registry.templates["melodify-music", digest["second"]])
    assert f"{IMAGE}1" in str(there["deploymentSpec"])


def test_the_command_uploads_what_the_other_one_compiled_with_an_image_by_digest(
    registry: TemplatesEmulator, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "MELODIFY_ALLOW_PAID": "true",
        "MELODIFY_PROJECT": "melodify",
        "MELODIFY_ACCESS_TOKEN": TOKEN,
        "MELODIFY_TEMPLATES_BASE_URL": registry.url,
        "MELODIFY_IMAGE": f"{IMAGE}7",
    }
    melodify = [sys.executable, "-c", "from melodify_lib.cli import main; main()", "pipeline"]
    out = str(tmp_path / "pipeline.yaml")
    for command in (["compile", "--out", out], ["upload", out, "--tag", "v1"]):
        done = subprocess.run([*melodify, *command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and TOKEN not in done.stdout + done.stderr, done.stderr
    ((package, version), data) = next(iter(registry.templates.items()))
    assert done.stdout.strip().endswith(f"/{package}/{version}") and f"{IMAGE}7".encode() in data


@pytest.mark.parametrize("lost", ["answer", "race"])
def test_what_another_uploaded_or_whose_answer_was_lost_is_found(
    registry: TemplatesEmulator, settings: Settings, tmp_path: Path, lost: str
) -> None:
    template = compile_pipeline(tmp_path / "one.yaml")
    upload(template, settings)
    if lost == "race":  # it appears after it was looked for
        registry.fault = lambda request: Reply(registry.error(404, "no"), 404) if "/versions/" in request.path else None
    before = uploads(registry)
    assert upload(template, settings, tags=["v1"]).endswith(registry.tags["melodify-music", "v1"])
    assert uploads(registry) == before + (lost == "race") and len(registry.templates) == 1


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_a_refusal_is_an_error_without_the_token(
    registry: TemplatesEmulator, settings: Settings, tmp_path: Path, status: int
) -> None:
    registry.fault = lambda request: Reply(registry.error(status, TOKEN), status)
    with pytest.raises(CloudError, match=str(status)) as refused:
        upload(compile_pipeline(tmp_path / "one.yaml"), settings)
    assert TOKEN not in str(refused.value)
    assert (len(registry.log) > 1) == (status in (429, 503))


def test_no_answer_is_an_error_in_the_end(
    registry: TemplatesEmulator, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "TIMEOUT_S", 0.2)
    registry.fault = lambda request: HANG
    with pytest.raises(CloudError, match="no whole answer"):
        upload(compile_pipeline(tmp_path / "one.yaml"), settings)


def test_what_cannot_be_is_refused_before_anything_is_sent(
    registry: TemplatesEmulator, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(PaidError):
        upload(tmp_path / "x.yaml", settings.model_copy(update={"allow_paid": False}))
    for text in ("", "a: [", "pipelineInfo: 7"):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(PipelineError, match="no compiled pipeline"):
            upload(tmp_path / "x.yaml", settings)
    assert not registry.log


def test_the_public_address_is_the_one_that_kfp_knows_as_artifact_registrys() -> None:
    public = Settings(allow_paid=True, project="melodify", access_token=TOKEN)
    assert address(public) == "https://us-central1-kfp.pkg.dev/melodify/melodify-pipelines"
    client = _client(public)
    assert client._is_ar_host() and client._config["upload_url"] == address(public)
    asked = client._config["get_version_url"]
    assert asked.startswith("https://artifactregistry.googleapis.com/v1/projects/melodify/locations/us-central1/")
