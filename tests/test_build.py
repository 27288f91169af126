"""Cloud Build's files: of the service's own form, and what that lets pass; the steps that need no Docker are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
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
from melodify_lib.store import open_store

FILES = ["cloudbuild.yaml", "cloudbuild.release.yaml", "cloudbuild.nightly.yaml", "cloudbuild.clean.yaml"]
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
    return [shlex.split(match[1]) for match in found if match]


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
    assert build["serviceAccount"], "the default account may do too much"


@pytest.mark.parametrize("file", FILES)
def test_a_build_is_not_over_before_its_last_step_has_had_its_time(file: str) -> None:
    """Of steps that may run at once the longest way counts; a build that is over settles nothing and keeps nothing."""
    ends: dict[str, int] = {}
    build = read(file)
    for step in build["steps"]:
        after = [ends[one] for one in step.get("waitFor", ends) if one != "-"]
        ends[step["id"]] = max(after, default=0) + seconds(step["timeout"])
    assert max(ends.values()) < seconds(build["timeout"]) <= 86_400


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
    assert named <= BUILT_IN
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
    for script in {match for _, text in scripts(file) for match in re.findall(r"\.ci/[\w.-]+", text)}:
        assert os.access(ROOT / script, os.F_OK if script.endswith(".py") else os.X_OK), script
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
    "file",
    [
        *(*FILES, "Makefile", "serving/Dockerfile", "web/Dockerfile"),
        *(".ci/images", ".ci/tool", ".ci/verify", ".ci/deploy-web"),
    ],
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
    paid = {
        file: [step["id"] for step in read(file)["steps"] if "MELODIFY_ALLOW_PAID=true" in step.get("env", [])]
        for file in FILES
    }
    assert paid == {
        "cloudbuild.yaml": ["audit", "test", "notebooks", "notebooks-cloud", "images-passed", "template"],
        "cloudbuild.release.yaml": ["release", "settle", "template"],
        "cloudbuild.nightly.yaml": [],  # the profile says it for all
        "cloudbuild.clean.yaml": ["clean"],
    }
    assert not any("ALLOW_PAID" in str(read(file)["options"]) for file in FILES)
    release = steps("cloudbuild.release.yaml")
    order = list(release)
    assert order[:2] == ["merged", "images"] and order.index("settle") == order.index("release") + 1 < order.index(
        "web"
    )
    assert "MELODIFY_KEEP_DAYS=3650" in release["release"]["env"], "or the clean-up ends it after a month"
    assert release["release"]["allowFailure"] and not release["settle"].get("allowFailure")
    nightly = steps("cloudbuild.nightly.yaml")
    assert list(nightly)[-1] == "clean" and nightly["lifecycle"]["allowFailure"]
    (name,) = [one for one in read("cloudbuild.nightly.yaml")["options"]["env"] if "SERVING_NAME" in one]
    assert name.partition("=")[2] != Settings().serving_name, "it would take away what serves"


def steps(file: str) -> dict[str, Any]:
    return {step["id"]: step for step in read(file)["steps"]}


def test_only_a_build_of_main_pushes_and_only_a_release_deploys() -> None:
    for name, step in steps("cloudbuild.yaml").items():
        pushes = re.search(r"images-push|images sign|pipeline upload", step["script"])
        assert bool(pushes) is ('[ "$_ACCOUNT" = build ] ||' in step["script"]), name
    deploys = {file for file in FILES if re.search("cloud deploy|deploy-web", (ROOT / file).read_text("utf-8"))}
    assert deploys == {"cloudbuild.release.yaml"}
    accounts = [read(file)["serviceAccount"].partition("/melodify-")[2].partition("@")[0] for file in FILES]
    assert accounts == ["$_ACCOUNT", "release", "nightly", "clean"]


def test_what_a_step_reports_is_kept_also_when_it_fails() -> None:
    build = steps("cloudbuild.yaml")
    for name, reports in {"audit": "runs/licences.md runs/sbom.json", "test": "runs/tests.xml"}.items():
        assert re.search(rf"trap '.*\.ci/keep\.py .* {reports}' EXIT", build[name]["script"])
    assert "--junitxml=runs/tests.xml" in build["test"]["script"]
    order = list(build)
    assert build["images-scan"]["allowFailure"] and order.index("images-passed") == order.index("images-scan") + 1
    assert "runs/images/*.scan.json" in build["images-passed"]["script"]
    assert order.index("images-passed") < order.index("images-push")


def test_reports_go_into_a_bucket_by_their_names_and_what_was_not_written_is_passed_over(
    gcp: Cloud, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/tests.xml").write_text("<testsuites/>")
    address = f"gs://{Settings.load().bucket}/build/7"
    command = [sys.executable, ROOT / ".ci/keep.py", address, tmp_path / "runs/tests.xml", tmp_path / "sbom.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # as a step does: .ci/ is on its path
    assert done.stdout == f"{address}/tests.xml\n", done.stderr
    assert open_store(Settings.load(store=address)).get("tests.xml") == b"<testsuites/>"


@pytest.mark.parametrize("merged", [True, False])
def test_a_tag_on_what_is_not_in_mains_history_is_not_released(merged: bool, tmp_path: Path) -> None:
    def git(*arguments: str, at: str = "origin") -> None:
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        subprocess.run(["git", "-C", tmp_path / at, *who, *arguments], check=True, capture_output=True)

    (tmp_path / "origin").mkdir()
    git("init", "--initial-branch=main")
    for number in range(3):
        git("commit", "--allow-empty", "--message", f"{number}")
    if not merged:
        git("checkout", "-b", "aside")
        git("commit", "--allow-empty", "--message", "aside")
    git("tag", "v1")
    git("checkout", "main")
    git("commit", "--allow-empty", "--message", "later")
    clone = ["clone", "--depth=1", "--branch=v1", f"file://{tmp_path}/origin", "checkout"]  # as Cloud Build has it
    git(*clone, at=".")
    merged_script = steps("cloudbuild.release.yaml")["merged"]["script"]
    done = subprocess.run(
        ["bash", "-c", merged_script],
        cwd=tmp_path / "checkout",
        env={**os.environ, "TAG_NAME": "v1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is merged, done.stderr
    assert ("not in the history of main" in done.stdout) is not merged


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
    # As BuildKit writes a layout with attestations: an index that names the index of the image and of its attestation.
    "docker": r"""
printf '%s\n' "docker $*" >> "$SAID"
for word in "$@"; do case $word in type=oci,tar=false,dest=*) dest=${word#*dest=} dest=${dest%%,*} ;; esac; done
if [ -n "${dest:-}" ]; then
    mkdir -p "$dest/blobs/sha256"
    put() { # the digest of what comes in, which is then a blob
        cat > "$dest/blob"
        set -- "$(sha256sum "$dest/blob")"
        mv "$dest/blob" "$dest/blobs/sha256/${1%% *}"
        echo "sha256:${1%% *}"
    }
    manifest=application/vnd.oci.image.manifest.v1+json
    image=$(echo "{\"layers\": \"${LAYERS:-}$dest\"}" | put)
    attestation=$(echo '{"subject": "it"}' | put)
    platform='"platform":{"architecture":"amd64","os":"linux"}'
    of="\"annotations\":{\"vnd.docker.reference.digest\":\"$image\",\"vnd.docker.reference.type\":\"attestation-manifest\"}"
    index=$(put <<END
{"schemaVersion":2,"manifests":[{"mediaType":"$manifest","digest":"$image","size":9,$platform},
{"mediaType":"$manifest","digest":"$attestation","size":9,$of,"platform":{"architecture":"unknown","os":"unknown"}}]}
END
)
    [ -z "${NO_DIGEST:-}" ] || index=
    created='"annotations":{"org.opencontainers.image.created":"2026-11-26T00:00:00Z"}'
    kind=application/vnd.oci.image.index.v1+json
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s","digest":"%s","size":9,%s}]}\n' \
        $kind "$index" "$created" > "$dest/index.json"
fi
case $1 in
create) echo "of-$2" ;;
cp) program=${*: -1} && cp "$(dirname "$0")/its-${program##*/}" "$program" ;;
esac""",
    "its-grype": r"""
printf '%s\n' "grype $*" >> "$SAID"
for word in "$@"; do case $word in json=*) echo '{}' > "${word#json=}" ;; esac; done
exit "${BAD:-0}" """,
    "its-crane": r"""
printf '%s\n' "crane $*" >> "$SAID"
case $1 in
push) echo "${3%:*}@$(sed 's/.*"digest":"\([^"]*\)".*/\1/' "$2/index.json")" ;;
digest) [ -z "${NEVER:-}" ] || exit 1; echo "sha256:$(printf '1%.0s' $(seq 64))" ;;
esac""",
    "its-cosign": r"""
printf '%s\n' "cosign $*" >> "$SAID"
[ "$1" != verify ] || exit "${UNSIGNED:-0}" """,
    "gcloud": r"""
printf '%s\n' "gcloud $*" >> "$SAID"
case $* in
*projectNumber*) echo 123 ;;
*latestReadyRevisionName*) echo melodify-web-2 ;;
*status.traffic*) printf '%s,melodify-web-2\n,melodify-web-2\n' "${SHARE:-100}" ;;
*'revisions describe'*) echo "${RUNS:-$IMAGE}" ;;
esac""",
    "curl": r"""
printf '%s\n' "curl $*" >> "$SAID"
[ "${*: -1}" != "https://canary---melodify-web-123.r.run.app${SICK:-none}" ]""",
}
KEY = "gcpkms://projects/p/locations/r/keyRings/melodify/cryptoKeys/images"
NAMES = ("serving-cpu", "serving-cuda", "web")


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Docker, gcloud and others, which only note it, were told, by scripts of a checkout that is a copy."""
    for name, text in FAKE.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    for name in (".ci/images", ".ci/tool", ".ci/verify", ".ci/deploy-web", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    given = {"SAID": tmp_path / "said", "REVISION": "abc", "SOURCE_DATE_EPOCH": "1700000000", "SIGNING_KEY": KEY}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path / "said"


def script(said: Path, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    command = ["bash", said.parent / ".ci" / name, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


REGISTRY = {"REGISTRY": "pkg.dev/p/melodify"}


def test_images_are_built_with_attestations_scanned_and_what_was_scanned_is_pushed_and_signed(said: Path) -> None:
    for what in ("build", "scan", "push", "sign"):
        done = script(said, "images", what, **REGISTRY)
        assert done.returncode == 0, done.stderr
    assert script(said, "images", "tag", TAGS="v1 live", **REGISTRY).returncode == 0
    told = said.read_text().splitlines()
    builds = [line for line in told if "buildx build" in line]
    assert len(builds) == 3 and all("--provenance mode=max --sbom generator=" in line for line in builds)
    assert all("CREATED=2023-11-14T22:13:20Z" in line and "REVISION=abc" in line for line in builds)
    assert all("--cache-from type=registry,ref=pkg.dev/p/melodify/cache:" in line for line in builds)
    assert ["DEVICE=cpu" in line for line in builds] == [True, False, False]
    assert [re.search(r"--file (\S+)", line)[1] for line in builds] == [  # type: ignore[index]
        "serving/Dockerfile", "serving/Dockerfile", "web/Dockerfile",
    ]  # fmt: skip
    images = said.parent / "runs/images"
    digests = {name: json.loads((images / name / "index.json").read_text())["manifests"][0]["digest"] for name in NAMES}
    refs = {name: (images / f"{name}.ref").read_text().strip() for name in NAMES}
    assert refs == {name: f"pkg.dev/p/melodify/{name}@{digests[name]}" for name in NAMES}
    assert len(set(refs.values())) == 3 and all(re.search("@sha256:[0-9a-f]{64}$", ref) for ref in refs.values())
    # Jobs of the web application run in the image of the same build, which its own image names.
    assert [f"MELODIFY_IMAGE={refs['serving-cpu']} " in line for line in builds] == [False, False, True]
    assert [line for line in told if line.startswith("grype")] == [
        f"grype oci-dir:runs/images/{name}.image --only-fixed --fail-on high -o table "
        f"-o json=runs/images/{name}.scan.json"
        for name in NAMES
    ]
    pushes = [line for line in told if line.startswith("crane push")]
    assert pushes == [f"crane push runs/images/{name} pkg.dev/p/melodify/{name}:abc" for name in NAMES]
    signed = [line.split()[-1] for line in told if line.startswith("cosign sign")]
    verified = [line.split()[-1] for line in told if line.startswith("cosign verify")]
    assert signed == verified == list(refs.values())
    assert told[-2:] == [f"crane tag {refs['web']} {tag}" for tag in ("v1", "live")]
    fetched = [line for line in told if line.startswith("docker create")]
    assert len(fetched) == 3 and all(PINNED.fullmatch(line.split()[-1]) for line in fetched)


def test_the_scanner_is_given_the_image_itself_as_the_index_beside_its_attestations_names_it(said: Path) -> None:
    for what in ("build", "scan"):
        assert script(said, "images", what, "web").returncode == 0
    images = said.parent / "runs/images"
    (seen,) = json.loads((images / "web.image/index.json").read_text())["manifests"]
    blob = images / "web.image/blobs" / seen["digest"].replace(":", "/")
    assert "layers" in json.loads(blob.read_text()) and seen["size"] == blob.stat().st_size
    assert seen["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


def test_what_is_bad_or_is_not_what_was_scanned_is_not_pushed(said: Path) -> None:
    ref = said.parent / "runs/images/web.ref"
    assert script(said, "images", "build", "web").returncode == 0
    assert script(said, "images", "scan", "web", BAD="2").returncode == 2
    assert (said.parent / "runs/images/web.scan.json").exists()
    bad = script(said, "images", "push", "web", **REGISTRY)
    assert bad.returncode == 1 and "was not scanned, or did not pass" in bad.stderr
    assert script(said, "images", "scan", "web").returncode == 0
    index = said.parent / "runs/images/web/index.json"
    passed = index.read_text()
    index.write_text(re.sub("sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", passed))
    other = script(said, "images", "push", "web", **REGISTRY)
    assert other.returncode == 1 and "was not scanned" in other.stderr
    index.write_text(passed)
    assert script(said, "images", "push", "web").returncode != 0  # nobody says where to
    assert not ref.exists()
    assert script(said, "images", "push", "web", **REGISTRY).returncode == 0 and ref.exists()
    assert script(said, "images", "build", "web").returncode == 0 and not ref.exists()  # of what was before
    assert "build|scan|push|sign|find|tag" in script(said, "images", "bild").stderr


def test_an_image_without_a_digest_is_an_error_wherever_it_shows(said: Path) -> None:
    nothing = script(said, "images", "build", "web", NO_DIGEST="1")
    assert nothing.returncode == 1 and "is no digest" in nothing.stderr
    for what in ("scan", "push"):
        assert script(said, "images", what, "web", NO_DIGEST="1", **REGISTRY).returncode == 1
    assert not (said.parent / "runs/images/web.ref").exists()
    for what in ("sign", "tag"):
        assert script(said, "images", what, "web", TAGS="live", **REGISTRY).returncode == 1
    assert not [line for line in said.read_text().splitlines() if line.startswith(("crane", "cosign"))]


def test_a_release_finds_what_main_has_pushed_for_its_commit_or_does_not_begin(said: Path) -> None:
    assert script(said, "images", "find", **REGISTRY).returncode == 0
    assert (said.parent / "runs/images/web.ref").read_text() == f"pkg.dev/p/melodify/web@sha256:{'1' * 64}\n"
    assert "crane digest pkg.dev/p/melodify/web:abc" in said.read_text()
    never = script(said, "images", "find", "web", NEVER="1", **REGISTRY)
    assert never.returncode == 1 and "the build of main has not passed" in never.stderr


IMAGE = f"pkg.dev/p/melodify/web@sha256:{'0' * 64}"


def test_the_web_application_is_migrated_asked_and_only_then_gets_its_visitors(said: Path) -> None:
    done = script(said, "deploy-web", IMAGE, "p", "r", IMAGE=IMAGE)
    assert done.returncode == 0 and f"melodify-web-2 serves {IMAGE}" in done.stdout, done.stderr
    told = [line for line in said.read_text().splitlines() if "describe" not in line and "docker" not in line]
    order = [
        f"cosign verify --key {KEY} --insecure-ignore-tlog=true {IMAGE}",
        f"gcloud run jobs update melodify-migrate --image {IMAGE}",
        "gcloud run jobs execute melodify-migrate --wait",
        f"gcloud run services update melodify-web --image {IMAGE} --no-traffic --tag canary",
        "curl ",
        "curl ",
        "gcloud run services update-traffic melodify-web --to-latest",  # also after a rollback by hand
    ]
    assert len(told) == len(order) and all(line.startswith(start) for line, start in zip(told, order, strict=True))
    assert [line.split()[-1] for line in told if "curl" in line] == [
        f"https://canary---melodify-web-123.r.run.app{page}" for page in ("/ready", "/")
    ]


@pytest.mark.parametrize("sick", ["/ready", "/"])
def test_a_revision_that_does_not_answer_gets_no_visitors_and_no_machine(sick: str, said: Path) -> None:
    assert script(said, "deploy-web", IMAGE, "p", "r", IMAGE=IMAGE, SICK=sick).returncode == 1
    assert "--to-latest" not in said.read_text() and "--remove-tags canary" in said.read_text()


def test_a_deployment_after_which_something_else_serves_fails(said: Path) -> None:
    for wrong in ({"SHARE": "90"}, {"RUNS": "another"}):
        done = script(said, "deploy-web", IMAGE, "p", "r", **{"IMAGE": IMAGE, **wrong})
        assert done.returncode == 1 and "should serve, and does not" in done.stderr


@pytest.mark.parametrize(
    ("image", "variables"), [("pkg.dev/p/melodify/web:live", {}), (f"{IMAGE[:-1]}", {}), (IMAGE, {"UNSIGNED": "1"})]
)
def test_what_is_not_signed_by_digest_is_not_deployed(image: str, variables: dict[str, str], said: Path) -> None:
    assert script(said, "deploy-web", image, "p", "r", **variables).returncode == 1
    assert not said.exists() or "gcloud" not in said.read_text()


needs_venv = pytest.mark.skipif(
    not (ROOT / ".venv/bin/melodify").exists(), reason="steps run .venv/bin/melodify; `make test` sets it up"
)


@needs_venv
def test_the_local_build_runs_steps_in_order_and_none_that_needs_docker(gcp: Cloud) -> None:
    """`make build-local`, which CI runs too, releases besides."""
    command = [sys.executable, str(ROOT / ".ci/build_local.py")]
    refused = [[*command, one] for one in ("images", "nothing")]
    assert [subprocess.run(one, capture_output=True, check=False).returncode for one in refused] == [1, 1]
    release = ["cloudbuild.release.yaml", "settle"]
    done = subprocess.run([*command, "template", *release], capture_output=True, text=True, check=False)
    said = [line.partition(",")[0] for line in done.stderr.splitlines() if re.match(r"\w+: ", line)]
    assert (done.returncode, said) == (1, ["template: passed", "settle: ended with 1"]), done.stderr
    assert "not released" in done.stdout
    ((package, digest), template) = next(iter(gcp.templates.templates.items()))
    assert b"serving-cpu@sha256:" in template
    assert gcp.templates.tags == {(package, "commit-0000000"): digest}


@needs_venv
def test_the_night_takes_away_what_it_made_and_the_day_what_has_expired_and_each_says_so_before(gcp: Cloud) -> None:
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
    done = [clean(file) for file in ("cloudbuild.nightly.yaml", "cloudbuild.clean.yaml")]
    assert [one.returncode for one in done] == [1, 0] and "the lifecycle failed" in done[0].stdout, done[1].stderr
    lines = [re.sub(r"(projects|run|locations)/\S*/", "", one.stdout).splitlines() for one in done]
    said = [[line for line in one if "deleted" in line] for one in lines]
    assert said == [
        [
            "endpoint melodify-nightly (serves 1) would be deleted",
            "model melodify-nightly (1 version) would be deleted",
            "endpoint melodify-nightly: deleted",
            "model melodify-nightly: deleted",
        ],
        ["model expired (1 version) would be deleted", "model expired: deleted"],
    ]
    assert [one.run for one in resources.find(settings)] == [serves.trace]
    endpoints.delete_model(serves, f"{clients.parent(serves)}/models/{serves.serving_name}")


def clean(file: str) -> subprocess.CompletedProcess[str]:
    """The step `clean` of `file`, as of a build whose trace is all zeros."""
    command = [sys.executable, str(ROOT / ".ci/build_local.py"), file, "clean"]
    variables = {"BUILD_ID": "00000000-0000-0000-0000-000000000000"}
    # A make under make says which folder it enters.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)


def test_what_notebooks_make_can_be_cleaned_by_the_builds_number() -> None:
    trace = "0123456789abcdef0123456789abcdef"
    assert labels.labels(Settings(trace=trace), "x")[labels.RUN] == trace
