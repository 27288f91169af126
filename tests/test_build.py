"""Cloud Build's files: of the service's own form, and what that lets pass; the steps that need no Docker are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from conftest import ROOT
from google.cloud.devtools.cloudbuild_v1 import Build
from google.protobuf import json_format

from emulators.cloud import Cloud
from melodify_lib.cli import app
from melodify_lib.cloud import clients, endpoints, labels, resources
from melodify_lib.settings import Settings

FILES = ["cloudbuild.yaml", "cloudbuild.nightly.yaml"]
BUILT_IN = {"PROJECT_ID", "BUILD_ID", "COMMIT_SHA", "SHORT_SHA", "TAG_NAME"}
"""Of Cloud Build's own substitutions, those that are used; the last three are a trigger's."""
PINNED = re.compile(r"[\w./-]+:[\w.-]*\d+\.\d+\.\d+[\w.-]*")
SECRET = re.compile(
    r"(?i)(?:key|token|password|secret)\b[\"']?\s*[:=]\s*[\"']?(?!projects/)[\w/+-]{12,}|sk-\w{10,}|ya29\."
)


def read(file: str) -> dict[str, Any]:
    build: dict[str, Any] = yaml.safe_load((ROOT / file).read_text("utf-8"))
    return build


def scripts(file: str) -> list[tuple[str, str]]:
    """Each step and its script, a line that goes on made one, without here-strings and comments."""
    found = [(step["id"], step["script"].replace("\\\n", " ")) for step in read(file)["steps"]]
    return [(name, re.sub(r"^\s*#.*$", "", script, flags=re.MULTILINE)) for name, script in found]


def commands(file: str, program: str) -> list[list[str]]:
    """The words after `program` wherever a script calls it; what stands in variables is left as it is."""
    lines = [line for _, script in scripts(file) for line in script.splitlines()]
    found = [re.search(rf"(?:^|\s|/){program}\s+(.*)", line) for line in lines]
    return [shlex.split(re.sub(r"\$\{TAG_NAME:\+(.*)\}", r"\1", match[1])) for match in found if match]


@pytest.mark.parametrize("file", FILES)
def test_it_has_cloud_builds_own_form(file: str) -> None:
    build = Build(json_format.ParseDict(read(file), Build.pb(Build())))
    assert len(build.steps) == len(read(file)["steps"]) and build.options.logging.name == "CLOUD_LOGGING_ONLY"


@pytest.mark.parametrize("file", FILES)
def test_what_the_form_does_not_say(file: str) -> None:
    build = read(file)
    ids = [step["id"] for step in build["steps"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z-]+", one) for one in ids)
    for number, step in enumerate(build["steps"]):
        assert PINNED.fullmatch(step["name"]), f"{step['id']}: {step['name']} is no exact version"
        assert set(step.get("waitFor", [])) <= {"-", *ids[:number]}, step["id"]
        assert re.match(r"#!/bin/(ba)?sh\n", step["script"]), step["id"]
        assert 0 < seconds(step["timeout"]) <= seconds(build["timeout"]), step["id"]
        if "apk add" in step["script"]:
            assert step["script"].startswith("#!/bin/sh") and step["name"].startswith("docker:")
    assert seconds(build["timeout"]) <= 86_400
    assert build["serviceAccount"], "the default account may do too much"


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


@pytest.mark.parametrize("file", FILES)
def test_every_substitution_is_declared_and_every_declared_one_is_used(file: str) -> None:
    build, text = read(file), (ROOT / file).read_text("utf-8")
    declared = set(build["substitutions"])
    body = re.sub(r"^substitutions:\n(?:  .*\n)*", "", text, flags=re.MULTILINE)
    used = set(re.findall(r"\$\{?(_[A-Z]+)", body))
    assert used <= declared
    assert declared <= set(re.findall(r"\$\{?(_[A-Z]+)", text))
    named = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", text))
    assert named <= BUILT_IN | {"MELODIFY_IMAGE"}
    # What Cloud Build itself replaces, outside of scripts, is given in every build but by a trigger of a tag.
    outside = yaml.safe_dump({**build, "steps": [{**step, "script": ""} for step in build["steps"]]})
    assert "TAG_NAME" not in outside
    assert build["options"]["automapSubstitutions"] and build["options"]["dynamicSubstitutions"]


@pytest.mark.parametrize("file", FILES)
def test_make_targets_commands_and_files_that_steps_name_exist(file: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)) | {".venv/.ready"}
    made = [one[0] for one in commands(file, "make") if "=" not in one[0]]
    assert made and set(made) <= targets
    for words in commands(file, "melodify"):
        parse(words)
    for script in {match for _, text in scripts(file) for match in re.findall(r"\.ci/[\w-]+", text)}:
        assert os.access(ROOT / script, os.X_OK), script
    for name in {match for _, text in scripts(file) for match in re.findall(r"([A-Z]+)=", text) if match in "KEEP RUN"}:
        assert f"$({name})" in makefile


def parse(words: list[str]) -> None:
    """Raise for what `melodify` would not understand. Nothing is run."""
    command: click.Command = typer.main.get_command(app)
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    words = [re.sub(r"\$_(WITHIN|BUDGET)", "1", word) for word in words]
    command.make_context(command.name, list(words))


@pytest.mark.parametrize(
    "file", [*FILES, "Makefile", ".ci/images", ".ci/deploy-web", "serving/Dockerfile", "web/Dockerfile"]
)
def test_no_secret_stands_in_it(file: str) -> None:
    assert not SECRET.findall((ROOT / file).read_text("utf-8"))


def test_what_is_said_is_what_a_secret_would_look_like() -> None:
    assert all(SECRET.findall(text) for text in ("OPENAI_API_KEY=sk-abcdefghijklmno", "token: 'abcdefghijkl'"))


def test_settings_of_steps_are_settings() -> None:
    for file in FILES:
        build = read(file)
        for said in (build["options"].get("env", []), *(step.get("env", []) for step in build["steps"])):
            names = {one.partition("=")[0] for one in said if one.startswith("MELODIFY_")}
            assert names <= {f"MELODIFY_{field.upper()}" for field in Settings.model_fields}


def test_nothing_is_paid_for_by_a_step_that_does_not_say_so_nor_twice() -> None:
    steps = {step["id"]: step for step in read("cloudbuild.yaml")["steps"]}
    paid = {name for name, step in steps.items() if "MELODIFY_ALLOW_PAID=true" in step.get("env", [])}
    assert paid == {"notebooks", "notebooks-cloud", "template", "release", "settle"}
    assert "env" not in read("cloudbuild.yaml")["options"]
    order = list(steps)
    assert order.index("settle") == order.index("release") + 1 < order.index("web")
    assert "MELODIFY_KEEP_DAYS=3650" in steps["release"]["env"], "or the clean-up ends it after a month"
    assert steps["release"]["allowFailure"] and not steps["settle"].get("allowFailure")
    for name in ("release", "settle", "web", "tag"):
        assert '[ -n "${TAG_NAME:-}" ] ||' in steps[name]["script"]
    nightly = {step["id"]: step for step in read("cloudbuild.nightly.yaml")["steps"]}
    assert list(nightly)[-1] == "clean" and nightly["lifecycle"]["allowFailure"]
    (name,) = [one for one in read("cloudbuild.nightly.yaml")["options"]["env"] if "SERVING_NAME" in one]
    assert name.partition("=")[2] != Settings().serving_name, "it would take away what serves"


def test_the_lifecycle_on_the_real_cloud_has_a_budget_or_does_not_start() -> None:
    refused = make("notebooks-gcp")
    assert refused.returncode != 0 and "say BUDGET=" in refused.stderr
    assert "-p budget=25" in make("notebooks-gcp", "BUDGET=25").stdout


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make` would run."""
    command = ["make", "-n", "-o", ".venv/.ready", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("ends", [0, 3])
def test_what_notebooks_became_is_kept_also_when_one_failed_and_the_end_is_theirs(ends: int, tmp_path: Path) -> None:
    melodify = tmp_path / "melodify"
    melodify.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/said\n[ "$2" = keep ] || exit {ends}\n')
    melodify.chmod(0o755)
    for keep in ("", "KEEP=gs://results/builds/7"):
        command = ["make", "-o", ".venv/.ready", "run", f"BIN={tmp_path}", *filter(None, [keep])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        assert bool(done.returncode) == bool(ends)
    said = (tmp_path / "said").read_text().splitlines()
    assert said == ["notebooks run", "notebooks run", "notebooks keep gs://results/builds/7"]


FAKE = {
    "docker": """
printf '%s\\n' "docker $*" >> "$SAID"
while [ $# -gt 0 ]; do
    key=containerimage
    [ "$1" != --metadata-file ] || cat > "$2" <<END
{
  "$key.config.digest": "sha256:${CONFIG:-c}",
  "$key.digest": "sha256:$(basename "$2" .json)"
}
END
    [ "$1" != --fail-on ] || exit "${BAD:-0}"
    shift
done""",
    "gcloud": 'printf "%s\\n" "gcloud $*" >> "$SAID"',
}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Docker and gcloud, which only note it, were told, by scripts of a checkout that is a copy."""
    for name, text in FAKE.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    for name in (".ci/images", ".ci/deploy-web", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name, value in {"SAID": tmp_path / "said", "REVISION": "abc", "SOURCE_DATE_EPOCH": "1700000000"}.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path / "said"


def script(said: Path, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = ["bash", said.parent / ".ci" / name, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_images_are_built_with_attestations_scanned_and_pushed_by_digest(said: Path) -> None:
    where = {"REGISTRY": "pkg.dev/p/melodify"}
    for what in ("build", "scan", "push"):
        done = script(said, "images", what, **where)
        assert done.returncode == 0, done.stderr
    assert script(said, "images", "tag", TAGS="v1 live", **where).returncode == 0
    told = said.read_text().splitlines()
    builds = [line for line in told if "buildx build" in line]
    assert len(builds) == 6 and all("--provenance mode=max --sbom true" in line for line in builds)
    assert all("CREATED=2023-11-14T22:13:20Z" in line and "REVISION=abc" in line for line in builds)
    assert all("--cache-from type=registry,ref=pkg.dev/p/melodify/cache:" in line for line in builds)
    assert ["DEVICE=cpu" in line for line in builds[:3]] == [True, False, False]
    assert [re.search(r"--file (\S+)", line)[1] for line in builds[:3]] == [  # type: ignore[index]
        "serving/Dockerfile", "serving/Dockerfile", "web/Dockerfile",
    ]  # fmt: skip
    assert all("push=true" not in line for line in builds[:3])
    assert all("push-by-digest=true,name-canonical=true,push=true" in line for line in builds[3:])
    scans = [line for line in told if "--fail-on high" in line]
    assert [re.search(r"oci-archive:(\S+)", line)[1] for line in scans] == [  # type: ignore[index]
        f"runs/images/{name}.tar" for name in ("serving-cpu", "serving-cuda", "web")
    ]
    assert (said.parent / "runs/images/web.ref").read_text() == "pkg.dev/p/melodify/web@sha256:web.push\n"
    tagged = "--tag pkg.dev/p/melodify/web:v1 --tag pkg.dev/p/melodify/web:live pkg.dev/p/melodify/web@sha256:web.push"
    assert told[-1] == f"docker buildx imagetools create {tagged}"


def test_what_is_bad_or_is_not_what_was_scanned_is_not_pushed(said: Path) -> None:
    assert script(said, "images", "build", "web").returncode == 0
    assert script(said, "images", "scan", "web", BAD="1").returncode == 1
    other = script(said, "images", "push", "web", CONFIG="other", REGISTRY="pkg.dev/p/melodify")
    assert other.returncode == 1 and "is not what was scanned" in other.stderr
    assert not (said.parent / "runs/images/web.ref").exists()
    assert script(said, "images", "push", "web").returncode != 0  # nobody says where to
    assert "build|scan|push|tag" in script(said, "images", "bild").stderr


def test_migrations_are_waited_for_before_the_web_application_gets_its_image(said: Path) -> None:
    image = f"pkg.dev/p/melodify/web@sha256:{'0' * 64}"
    assert script(said, "deploy-web", image, "p", "r").returncode == 0
    told = said.read_text().splitlines()
    verbs = ["run jobs update melodify-migrate", "run jobs execute melodify-migrate --wait", "run services update"]
    assert len(told) == 3 and all(verb in line for verb, line in zip(verbs, told, strict=True))
    assert [image in line for line in told] == [True, False, True]
    assert script(said, "deploy-web", "pkg.dev/p/melodify/web:live", "p", "r").returncode == 1
    assert len(said.read_text().splitlines()) == 3


needs_venv = pytest.mark.skipif(
    not (ROOT / ".venv/bin/melodify").exists(), reason="steps run .venv/bin/melodify; `make test` sets it up"
)


@needs_venv
def test_the_local_build_runs_steps_in_order_and_none_that_needs_docker(gcp: Cloud) -> None:
    """`make build-local`, which CI runs too, releases besides."""
    command = [sys.executable, str(ROOT / ".ci/build_local.py")]
    refused = [[*command, one] for one in ("images", "nothing")]
    assert [subprocess.run(one, capture_output=True, check=False).returncode for one in refused] == [1, 1]
    done = subprocess.run([*command, "settle", "template"], capture_output=True, text=True, check=False)
    said = [line.partition(",")[0] for line in done.stderr.splitlines() if re.match(r"\w+: ", line)]
    assert (done.returncode, said) == (1, ["template: passed", "settle: ended with 1"]), done.stderr
    assert "not released" in done.stdout
    ((package, digest), template) = next(iter(gcp.templates.templates.items()))
    assert b"serving-cpu@sha256:" in template
    assert gcp.templates.tags == {(package, "commit-0000000"): digest, (package, "v0.0.0"): digest}


@needs_venv
def test_the_night_takes_away_what_it_made_and_what_has_expired_and_says_so_before(gcp: Cloud) -> None:
    settings = Settings.load(serving_name="melodify-nightly", trace="0" * 32)
    environment = endpoints.container_environment(settings, "arranger")
    model = endpoints.register(settings, "an/image@sha256:0", environment=environment)
    endpoints.deploy(settings, model)
    expired = Settings.load(serving_name="expired", trace="1" * 32)
    serves = Settings.load(trace="2" * 32)
    for one in (expired, serves):
        endpoints.register(one, "an/image@sha256:0")
    (old,) = [one for name, one in gcp.vertex.models.items() if name.endswith("/expired")]
    old["labels"][labels.EXPIRES] = "2020-01-01"
    command = [sys.executable, str(ROOT / ".ci/build_local.py"), "cloudbuild.nightly.yaml", "clean"]
    variables = {"BUILD_ID": "00000000-0000-0000-0000-000000000000"}
    # A make under make says which folder it enters.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "the lifecycle failed" in done.stdout, done.stderr
    said = [re.sub(r"(projects|run|locations)/\S*/", "", line) for line in done.stdout.splitlines()[:6]]
    assert said == [
        "endpoint melodify-nightly (serves 1) would be deleted",
        "model melodify-nightly (1 version) would be deleted",
        "endpoint melodify-nightly: deleted",
        "model melodify-nightly: deleted",
        "model expired (1 version) would be deleted",
        "model expired: deleted",
    ]
    assert [one.run for one in resources.find(settings)] == [serves.trace]
    endpoints.delete_model(serves, f"{clients.parent(serves)}/models/{serves.serving_name}")


def test_what_notebooks_make_can_be_cleaned_by_the_builds_number() -> None:
    trace = "0123456789abcdef0123456789abcdef"
    assert labels.labels(Settings(trace=trace), "x")[labels.RUN] == trace
