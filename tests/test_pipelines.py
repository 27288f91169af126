"""The pipeline, in three tiers: each component as a function, the spec, a real run with its cache."""

import ast
import json
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from melodify_lib import logs, stages
from melodify_lib.errors import PipelineError, SettingsError
from melodify_lib.flow import Composer
from melodify_lib.nouns import Caption, TrackCard
from melodify_lib.settings import Settings
from pipelines import components
from pipelines.graph import Resources, compile_pipeline
from pipelines.run import arguments, run

ROOT = Path(__file__).parent.parent


def artifact(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path), uri=str(path), metadata={}, log_metric=lambda name, value: None)


def test_components_work_as_plain_functions(composer: Composer, photograph: Path, tmp_path: Path) -> None:
    parameters = arguments(photograph, Settings.load(), seconds=4, seed=3)
    model, request, description, song, measured = (
        artifact(tmp_path / name) for name in ("model", "request", "description", "song", "measured")
    )
    names = ("caption", "image_sha256", "genre", "given", "describer_settings", "describer_version")
    components.load_describer(**{name: parameters[name] for name in names}, model=model, request=request)
    components.rework_caption(
        model=model, request=request, describer_settings=parameters["describer_settings"], description=description
    )
    names = ("captioner", "seconds", "seed", "musician_settings", "musician_version")
    components.play_and_store(
        **{name: parameters[name] for name in names},
        request=request, description=description, song=song, measured=measured,
    )  # fmt: skip
    card = TrackCard.from_json(Path(song.uri).read_bytes())
    assert card == composer.compose(photograph, seconds=4, seed=3).card


def test_a_component_refuses_another_version(photograph: Path, tmp_path: Path) -> None:
    parameters = arguments(photograph, Settings.load(), seconds=4)
    names = ("caption", "image_sha256", "genre", "given", "describer_settings")
    with pytest.raises(PipelineError, match="heads-0"):
        components.load_describer(
            **{name: parameters[name] for name in names},
            describer_version="heads-0",
            model=artifact(tmp_path / "model"),
            request=artifact(tmp_path / "request"),
        )


def test_the_spec_is_stable_and_has_three_cached_tasks(tmp_path: Path) -> None:
    first, second = (compile_pipeline(tmp_path / f"{n}.yaml").read_text() for n in (1, 2))
    assert first == second
    tasks = yaml.safe_load(first)["root"]["dag"]["tasks"]
    assert sorted(tasks) == ["load-describer", "play-and-store", "rework-caption"]
    assert all(task["cachingOptions"] == {"enableCache": True} for task in tasks.values())
    image = yaml.safe_load(compile_pipeline(tmp_path / "3.yaml", image="example/image@sha256:0").read_text())
    assert "example/image@sha256:0" in json.dumps(image["deploymentSpec"])


def test_the_image_has_what_the_components_import() -> None:
    extras = re.findall(r"'\.\[([\w,]+)\]'", (ROOT / "serving" / "Dockerfile").read_text())[0].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [one for extra in extras for one in project["optional-dependencies"][extra]]
    there = {re.split(r"[\[<>=~! ]", one)[0].lower().replace("_", "-") for one in wanted}
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "pipelines").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imported(node)
    }
    ours = {"melodify_lib", "pipelines"}
    providers = packages_distributions()
    missing = [
        name
        for name in imported - ours - sys.stdlib_module_names
        if not there & {one.lower().replace("_", "-") for one in providers[name]}
    ]
    assert "kfp" in imported and not missing


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_resources_are_data_of_a_task(tmp_path: Path) -> None:
    given = {"play-and-store": Resources(cpu="4", memory="16G", accelerator="NVIDIA_L4")}
    spec = yaml.safe_load(compile_pipeline(tmp_path / "spec.yaml", resources=given).read_text())
    executors = spec["deploymentSpec"]["executors"]
    limits = executors["exec-play-and-store"]["container"]["resources"]
    assert limits["resourceCpuLimit"] == "4"
    assert limits["resourceMemoryLimit"] == "16G"
    assert limits["accelerator"] == {
        "type": "NVIDIA_L4",
        "count": "1",
        "resourceType": "NVIDIA_L4",
        "resourceCount": "1",
    }
    assert "resources" not in executors["exec-rework-caption"]["container"]
    with pytest.raises(PipelineError, match=r"no task 'play'.*play-and-store"):
        compile_pipeline(tmp_path / "spec.yaml", resources={"play": Resources(cpu="4")})


def test_parameters_have_no_secret_and_no_address_and_are_the_submitters(
    photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ("vertex_base_url", "gcs_base_url", "iam_base_url", "iam_credentials_base_url", "openai_base_url")
    settings = Settings.load(
        access_token="ya29.hidden", openai_api_key="sk-hidden", **dict.fromkeys(addresses, "http://hidden")
    )
    parameters = arguments(photograph, settings, seconds=4)
    assert "hidden" not in json.dumps(parameters)
    assert "musician" not in parameters["describer_settings"], "another musician keeps the first two steps cached"
    monkeypatch.setenv("MELODIFY_DESCRIBER_FALLBACK", "retrieval")
    assert Settings.load(**parameters["describer_settings"]).describer_fallback == ""


def test_a_local_run_needs_a_folder(photograph: Path) -> None:
    settings = Settings.load(store="gs://bucket/songs")
    parameters = arguments(photograph, settings, seconds=4)
    assert parameters["musician_settings"]["store"] == "gs://bucket/songs"
    with pytest.raises(SettingsError, match="gs://bucket/songs"):
        run(parameters, settings)


ALL = ["load-describer", "rework-caption", "play-and-store"]


def test_a_second_run_hits_the_cache_and_another_picture_misses_it(photograph: Path, tmp_path: Path) -> None:
    settings = Settings.load(store=tmp_path / "store")
    picture = tmp_path / "picture.png"
    picture.write_bytes(photograph.read_bytes())
    first = run(arguments(picture, settings, seconds=4), settings)
    assert first.tasks == dict.fromkeys(ALL, "done")
    assert Path(first.song).read_bytes() == first.files["track.wav"]

    second = run(arguments(picture, settings, seconds=4), settings)
    assert second.tasks == dict.fromkeys(ALL, "cached")
    assert second.card == first.card

    Image.open(photograph).rotate(180).save(picture)
    third = run(arguments(picture, settings, seconds=4), settings)
    assert third.tasks == dict.fromkeys(ALL, "done")
    assert third.card.image_sha256 != first.card.image_sha256

    first.save(tmp_path / "song")
    (tmp_path / "song/track.mp3").write_bytes(b"of the first")
    third.save(tmp_path / "song")
    assert not (tmp_path / "song/track.mp3").exists()
    assert TrackCard.from_json((tmp_path / "song/card.json").read_bytes()) == third.card

    longer = run(arguments(picture, settings, seconds=5), settings)
    assert longer.tasks == {"load-describer": "cached", "rework-caption": "cached", "play-and-store": "done"}

    Path(longer.card_address).unlink()
    again = run(arguments(picture, settings, seconds=5), settings)
    assert again.tasks["play-and-store"] == "done", "a song that was deleted is made again"
    Path(again.song).unlink()
    assert Path(run(arguments(picture, settings, seconds=5), settings).song).is_file(), "and so is one that lost a file"


def test_the_steps_log_json_in_the_trace_of_the_run_with_the_pictures_hash(photograph: Path, tmp_path: Path) -> None:
    settings = Settings.load(store=tmp_path / "store")
    with logs.tracing() as trace:
        made = run(arguments(photograph, settings, seconds=4), settings)
    (log,) = (tmp_path / "store/pipeline").glob("run-*/log.txt")
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines() if '{"severity"' in line]
    said = {line["logging.googleapis.com/labels"]["component"]: line for line in lines if " by " in line["message"]}
    assert said.keys() == {"rework-caption", "play-and-store"}
    assert log.read_text("utf-8").count(said["play-and-store"]["message"]) == 1, "KFP writes no second one"
    for line in lines:
        assert line["logging.googleapis.com/labels"]["picture"] == made.card.image_sha256
        assert line["logging.googleapis.com/trace"].endswith(trace)
    assert said["play-and-store"]["song"] == made.card.files["track.wav"]
    assert "MELODIFY_TRACE" not in os.environ


def test_what_a_stand_in_described_is_not_taken_from_the_cache(photograph: Path, tmp_path: Path) -> None:
    settings = Settings.load(store=tmp_path / "store")
    parameters = arguments(photograph, settings, seconds=4)
    made = run(parameters, settings)
    fell_back = made.card.model_copy(update={"fallback_from": made.card.describer})
    Path(made.card_address).write_text(fell_back.to_json())
    again = run(parameters, settings)
    assert again.tasks == dict.fromkeys(ALL, "done") and again.card == made.card


def test_a_failed_task_is_named_with_its_reason(photograph: Path, tmp_path: Path) -> None:
    settings = Settings.load(store=tmp_path / "store")
    parameters = {**arguments(photograph, settings, seconds=4), "musician_version": "0"}
    with pytest.raises(PipelineError, match=r"play-and-store.*submitted for 0.*log\.txt"):
        run(parameters, settings)


def test_the_pipeline_and_compose_make_the_same_song(composer: Composer, photograph: Path, tmp_path: Path) -> None:
    settings = Settings.load(store=tmp_path / "store")
    made = run(arguments(photograph, settings, seconds=4, seed=3), settings)
    assert made.card == composer.compose(photograph, seconds=4, seed=3).card
    assert stages.musician(settings).version == made.card.musician


def test_what_is_known_or_given_is_taken_as_it_is(composer: Composer, photograph: Path, tmp_path: Path) -> None:
    settings = Settings.load(store=tmp_path / "store")
    description = composer.describer.first.describe(Caption.from_text("A storm over a black sea"))
    caption = Caption(text="Something else", source="somebody")
    made = run(arguments(photograph, settings, seconds=4, caption=caption, description=description), settings)
    assert (made.card.caption, made.card.description, made.card.describer) == (caption, description, None)


def test_another_musician_keeps_the_first_two_steps_cached(
    photograph: Path, untrained: dict[str, Path], tmp_path: Path
) -> None:
    settings = Settings.load(store=tmp_path / "store")
    run(arguments(photograph, settings, seconds=4), settings)
    other = settings.model_copy(update={"musician": "musicgen", "checkpoint": str(untrained["mono"])})
    made = run(arguments(photograph, other, seconds=4), other)
    assert made.tasks == {"load-describer": "cached", "rework-caption": "cached", "play-and-store": "done"}
    assert made.card.musician.name == "musicgen"
