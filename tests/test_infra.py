"""infra/: what can be said of Terraform's files without its providers, which only the registry has."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import pytest
from conftest import ROOT, script

from melodify_lib.settings import Settings
from web.config import Config

INFRA = ROOT / "infra"
FILES = sorted(INFRA.glob("*.tf"))
TEXT = {path.name: path.read_text("utf-8") for path in FILES}
OURS = ("web", "pipeline", "serving", "build", "nightly")


def plain(value: Any) -> Any:
    """What `hcl2` read, without the quotes that it leaves around strings and its own marks."""
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.strip('"') if isinstance(value, str) else value


READ = {path.name: plain(hcl2.loads(path.read_text("utf-8"))) for path in FILES}


def resources() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for read in READ.values():
        for block in read.get("resource", []):
            for kind, named in block.items():
                for name, body in named.items():
                    yield kind, name, body


def blocks(kind: str) -> dict[str, dict[str, Any]]:
    return {
        name: body for read in READ.values() for block in read.get(kind, []) for name, body in block.items()
    }  # variables, outputs


def local_values() -> dict[str, Any]:
    return {name: value for read in READ.values() for block in read.get("locals", []) for name, value in block.items()}


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
def test_files_are_formatted() -> None:
    command = ["terraform", f"-chdir={INFRA}", "fmt", "-check", "-diff"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_whatever_is_referred_to_is_there() -> None:
    resource = {f"{kind}.{name}" for kind, name, _ in resources()}
    there = {
        r"(?<!data\.)\b(google_\w+\.\w+)\b": resource,
        r"\bvar\.(\w+)": set(blocks("variable")),
        r"\blocal\.(\w+)": set(local_values()),
    }
    for name, text in TEXT.items():
        code = re.sub(r"(?m)(^|\s)#.*$", "", text)
        for pattern, known in there.items():
            assert set(re.findall(pattern, code)) <= known, name
    for name in blocks("variable"):
        uses = re.findall(rf"\bvar\.{name}\b", "".join(text for of, text in TEXT.items() if of != "variables.tf"))
        assert uses, f"{name} is not used"


def test_variables_are_described_and_checked_and_outputs_described() -> None:
    for name, body in blocks("variable").items():
        assert body["description"].endswith("."), name
        assert body["type"] == "${bool}" or body["type"] == "bool" or "validation" in body, f"{name} is not checked"
    for name, body in blocks("output").items():
        assert body["description"].endswith("."), name


def test_outputs_and_environment_are_settings_by_their_own_names() -> None:
    known = {f"MELODIFY_{name.upper()}" for name in Settings.model_fields}
    known |= {f"WEB_{name.upper()}" for name in Config.model_fields} | {"DATABASE_URL"}
    outputs = {name for name in blocks("output") if name.isupper()}
    values = local_values()
    assert {"MELODIFY_PROJECT", "MELODIFY_BUCKET", "MELODIFY_SERVICE_ACCOUNT"} <= outputs
    assert outputs | values["web_environment"].keys() | values["web_secrets"].keys() <= known
    assert set(values["web_secrets"].values()) <= values["secrets"].keys()


def test_one_account_a_service_and_no_key() -> None:
    assert set(local_values()["accounts"]) == set(OURS)
    kinds = {kind for kind, _, _ in resources()}
    assert not kinds & {"google_service_account_key", "google_project_iam_binding", "google_project_iam_policy"}


def test_roles_are_narrow_and_each_has_its_reason_beside_it() -> None:
    everywhere = set(re.findall(r"roles/[\w.]+", TEXT["roles_project.tf"]))
    assert everywhere == {"roles/aiplatform.user", "roles/logging.logWriter"}, "a role on a resource will do"
    granted = {role for text in TEXT.values() for role in re.findall(r'"(?:\w+ )?(roles/[\w.]+)"', text)}
    assert not {role for role in granted if re.search(r"owner|editor|viewer$|[aA]dmin", role)}, granted
    for name, text in TEXT.items():
        for block in re.split(r"(?m)^}\n", text):  # a resource with what stands above it
            lines = block.splitlines()
            for number, line in enumerate(lines):
                if re.search(r'(?<!role)\s*= "roles/|roles/[\w.]+"\s*= \{', line) and "#" not in line:
                    entries = (earlier for earlier in reversed(lines[:number]) if "roles/" not in earlier)
                    assert next(entries).strip().startswith("#") or "role " in line, f"{name}: {line}"
            assert not re.search(r'"(\w+ )?roles/', block) or "#" in block, f"{name}: {block}"


def test_secrets_are_made_without_values_and_each_is_read_by_who_needs_it() -> None:
    assert not [kind for kind, _, _ in resources() if kind == "google_secret_manager_secret_version"]
    assert not [kind for kind, _, _ in resources() if kind == "google_sql_user"]
    accessors = re.findall(r"roles/secretmanager\.\w+", "".join(TEXT.values()))
    assert accessors == ["roles/secretmanager.secretAccessor"]


def test_buckets_are_closed_and_age_ends_what_is_in_them() -> None:
    for kind, name, body in resources():
        if kind == "google_storage_bucket":
            assert body["public_access_prevention"] == "enforced", name
            assert str(body["uniform_bucket_level_access"]).lower() == "true", name
            assert [rule for rule in body["lifecycle_rule"] if rule["action"][0]["type"] == "Delete"], name
    prefixes = re.search(r"matches_prefix = \[(.*?)\]", TEXT["storage.tf"])
    by_hand = re.search(r'"matchesPrefix": \[(.*?)\]', (ROOT / "docs/cloud.md").read_text("utf-8"), re.DOTALL)
    assert prefixes and by_hand
    assert sorted(re.findall(r'"(.*?)"', prefixes[1])) == sorted(re.findall(r'"(.*?)"', by_hand[1]))


def test_github_is_let_in_by_repository_and_environment() -> None:
    (provider,) = [body for kind, _, body in resources() if kind.endswith("workload_identity_pool_provider")]
    assert provider["attribute_condition"] == "assertion.sub == 'repo:${var.github_repository}:environment:release'"


def test_every_exception_from_the_policy_has_a_reason() -> None:
    skips = [line for text in TEXT.values() for line in text.splitlines() if "checkov:skip" in line]
    assert skips
    for line in skips:
        assert re.search(r"#checkov:skip=CKV2?_GCP_\d+: \S.{7,}", line), line


def test_an_argument_that_the_provider_does_not_know_is_found() -> None:
    """.ci/terraform_schema.py, over a schema of our own: the real one comes with `make audit`."""
    checker = script("terraform_schema")
    inner = {"kind": "interface", "properties": [{"name": "maxCount", "type": {"primitive": "number"}}]}
    schema = checker.Schema.__new__(checker.Schema)
    schema._types = {"g.Scaling": inner}
    table = {
        "properties": [
            {"name": "name", "type": {"primitive": "string"}},
            {"name": "scaling", "optional": True, "type": {"fqn": "g.Scaling"}},
        ]
    }

    def found(text: str) -> list[str]:
        (resource,) = hcl2.loads(text)["resource"]
        return list(checker.problems(schema, table, resource['"g"']['"x"'], "x"))

    good = 'resource "g" "x" {\n  name = "a"\n  count = 1\n  scaling {\n    max_count = 3\n  }\n}\n'
    assert found(good) == []
    assert found(good.replace("max_count", "most")) == ["x.scaling: no most", "x.scaling: maxCount is missing"]
    assert found(good.replace('  name = "a"\n', "")) == ["x: name is missing"]


GOOD = {
    "project": "my-project-123",
    "alert_email": "me@example.org",
    "billing_account": "012345-6789AB-CDEF01",
    "github_repository": "me/melodify",
    "build_repository": "projects/p/locations/us-central1/connections/c/repositories/r",
    "image": f"us-central1-docker.pkg.dev/p/melodify/serving-cpu@sha256:{'0' * 64}",
    "web_host": "music.example.org",
}
BAD = {
    "project": "My Project",
    "region": "us",
    "web_image": "web",
    "web_profile": "aws",
    "web_host": "https://music.example.org/",
    "web_instances": '{"least": 0, "most": 1}',
    "database_tier": "small",
    "keep_days": "1",
    "github_repository": "https://github.com/me/melodify",
    "build_repository": "melodify",
    "nightly_budget": "-1",
    "alert_email": "me",
    "billing_account": "mine",
    "monthly_budget": "9.5",
}


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        (GOOD, set()),
        (GOOD | {"web_profile": "gcp"}, set()),
        (BAD, set(BAD)),
        (GOOD | {"image": "melodify:latest"}, {"image"}),
        (GOOD | {"image": "", "web_profile": "gcp"}, {"web_profile"}),  # whose jobs need one
    ],
    ids=["good", "gcp", "bad", "a tag", "no image"],
)
def test_variables_take_what_can_be_used_and_refuse_the_rest(
    values: dict[str, str], wrong: set[str], tmp_path: Path
) -> None:
    """By Terraform itself, which plans variables alone without any provider."""
    shutil.copy(INFRA / "variables.tf", tmp_path)
    given = [f"-var={name}={value}" for name, value in values.items()]
    command = ["terraform", f"-chdir={tmp_path}", "plan", "-input=false", "-no-color", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    refused = set(re.findall(r'on variables\.tf line \d+:\n.*variable "(\w+)"', done.stderr.replace("│ ", "")))
    assert refused == wrong, done.stderr
    assert {*BAD, "image"} == {name for name, body in blocks("variable").items() if "validation" in body}
