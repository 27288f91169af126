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
import yaml
from conftest import ROOT, script

from melodify_lib.settings import Settings
from web.config import Config

INFRA = ROOT / "infra"
FILES = sorted(INFRA.glob("*.tf"))
TEXT = {path.name: path.read_text("utf-8") for path in FILES}
OURS = ("web", "pipeline", "serving", "check", "build", "release", "nightly", "clean")


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
    assert not {role for role in granted if re.search(r"/(owner|editor|viewer)$|[aA]dmin", role)}, granted
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


def writes() -> dict[str, list[str]]:
    """Account → folders of the bucket in which it writes and deletes."""
    (found,) = [
        body for kind, name, body in resources() if (kind, name) == ("google_storage_bucket_iam_member", "writes")
    ]
    return {who: list(folders) for who, folders in found["for_each"].items()}


def test_nobody_writes_or_deletes_in_another_ones_folders() -> None:
    may = writes()
    assert may["web"] == ["web"] and "songs" not in may["nightly"]
    assert not [who for who, folders in may.items() if "models" in folders]  # a release's weights: put there by hand
    nightly = (ROOT / "cloudbuild.nightly.yaml").read_text("utf-8")
    assert "MELODIFY_STORE=gs://$_BUCKET/nightly" in nightly and "nightly" in may["pipeline"]
    aged = re.search(r"matches_prefix = \[(.*?)\]", TEXT["storage.tf"])
    assert aged and {folder for folders in may.values() for folder in folders} == set(re.findall(r'"(.*?)/"', aged[1]))
    for kind, name, body in resources():
        if kind == "google_storage_bucket_iam_member" and "objectUser" in body["role"]:
            assert "startsWith" in str(body["condition"]), name


def test_every_trigger_gives_what_its_file_asks_for_and_acts_as_its_own_account() -> None:
    values, triggers = local_values(), {n: b for kind, n, b in resources() if kind == "google_cloudbuild_trigger"}
    assert set(triggers) == {"pull", "push", "clock"}
    files = {"check": "cloudbuild.yaml", "nightly": "cloudbuild.nightly.yaml", "clean": "cloudbuild.clean.yaml"}
    files |= {name: one["file"] for name, one in values["pushes"].items()}
    assert set(files) - {"check"} == {*values["pushes"], *values["clocks"]}
    given = {
        name: set(re.findall(r"\b(_[A-Z]+)\b", str(one.get("gives", "")))) for name, one in values["clocks"].items()
    }
    given |= {
        name: {"_SOURCE"} if str(one["images"]).lower() == "true" else set() for name, one in values["pushes"].items()
    }
    given["check"] = {"_SOURCE", "_ACCOUNT"}
    for name, file in files.items():
        build = yaml.safe_load((ROOT / file).read_text("utf-8"))
        assert {"_REGION", *given[name]} <= set(build["substitutions"]), name
        assert f"melodify-{name}@" in build["serviceAccount"] or build["substitutions"]["_ACCOUNT"] == "build", name
    assert 'service_account = google_service_account.this["check"].id' in TEXT["builds.tf"]
    assert TEXT["builds.tf"].count("service_account = google_service_account.this[each.key].id") == 2
    assert "each.key == " in str(triggers["push"]["approval_config"]) and "release" in str(triggers["push"])
    assert "COMMENTS_ENABLED" in str(triggers["pull"]["repository_event_config"])


def test_a_pull_request_may_log_and_keep_its_record_and_nothing_else() -> None:
    code = "".join(
        re.sub(r"(?m)(^|\s)#.*$", "", TEXT[name]) for name in TEXT if name.startswith(("roles_", "signing", "sec"))
    )
    assert re.findall(r'"check (\S+)"', code) == ["roles/logging.logWriter"]
    assert len(re.findall(r'"check"', code)) == 2  # its folder of results, and their list


def test_what_has_expired_is_taken_away_every_day_whatever_the_night_may_cost() -> None:
    clocks = local_values()["clocks"]
    assert str(clocks["clean"]["paused"]).lower() == "false"
    assert "var.nightly_budget == 0" in str(clocks["nightly"]["paused"])
    (role,) = [body for kind, _, body in resources() if kind == "google_project_iam_custom_role"]
    assert not re.search(r"create|update|upload|predict|deploy(?!\w)", str(role["permissions"]).replace("undeploy", ""))


def test_an_image_outlives_the_templates_that_name_it_and_its_signature_outlives_it() -> None:
    images, pipelines = (body for kind, _, body in resources() if kind == "google_artifact_registry_repository")
    assert "local.templates.days + 90" in str(images) and "local.templates.days *" in str(pipelines)
    assert "4 * (local.templates.kept + 5)" in str(images) and "sha256-" in str(images)


def test_no_setting_covers_the_image_that_the_web_applications_image_names() -> None:
    assert "MELODIFY_IMAGE" not in local_values()["web_environment"]
    assert "ENV MELODIFY_IMAGE=${MELODIFY_IMAGE}" in (ROOT / "web/Dockerfile").read_text("utf-8")
    assert "canary---" in local_values()["web_environment"]["WEB_HOSTS"]  # .ci/deploy-web asks under that name


def test_errors_and_builds_that_failed_are_told_and_need_no_metric() -> None:
    assert set(local_values()["alerts"]) == {"errors", "builds"}
    (policy,) = [body for kind, _, body in resources() if kind == "google_monitoring_alert_policy"]
    assert "condition_matched_log" in str(policy) and "notification_rate_limit" in str(policy["alert_strategy"])
    assert not [kind for kind, _, _ in resources() if kind == "google_logging_metric"]


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
    ],
    ids=["good", "gcp", "bad", "a tag"],
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
