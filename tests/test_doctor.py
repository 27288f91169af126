"""`melodify doctor` where the settings use the cloud."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from emulators.cloud import Cloud
from emulators.server import HANG, Reply
from melodify_lib.cloud import checks
from melodify_lib.doctor import Finding, examine
from melodify_lib.settings import Settings


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PATIENCE_S", 60.0)  # a busy machine imports the clients slowly


def found(**settings: object) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(Settings.load(**settings))}


def test_all_is_well(gcp: Cloud) -> None:
    findings = found()
    assert all(finding.ok for finding in findings.values()), findings
    assert {"openai", "credentials", "region", "vertex ai", "permissions", "gemini", "bucket"} <= set(findings)
    assert findings["bucket"].found == "gs://melodify can be listed, in us-central1"
    assert findings["quotas"].found == "processors of pipelines: 42, processors of endpoints: no limit in us-central1"
    assert findings["permissions"].found == "all 11 that the settings need"
    command = [sys.executable, "-c", "from melodify_lib.cli import main; main()", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "processors of pipelines: 42" in done.stdout


def test_quotas_that_are_used_up_or_cannot_be_seen_are_told_apart(gcp: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gcp.iam.quotas, "custom_model_serving_nvidia_l4_gpus", 0)
    none = found()["quotas"]
    assert none.ok is False and "L4 of endpoints: 0" in none.found
    gcp.iam.fault = lambda request: Reply({}, 403) if "quotaInfos" in request.path else None
    unseen = found()["quotas"]
    assert unseen.ok is None and "gcloud alpha services quota list" in unseen.found


def test_nothing_is_asked_where_nothing_may_cost(gcp: Cloud) -> None:
    gcp.vertex.log.clear()
    assert "vertex ai" not in found(profile="local", allow_paid=False, captioner="local", describer="local", store="x")
    assert not gcp.vertex.log


@pytest.mark.parametrize(
    ("wrong", "what", "says"),
    [
        ({"openai_api_key": "sk-wrong"}, "openai", "credentials"),
        ({"openai_model": "none"}, "openai", "404"),
        ({"access_token": "wrong"}, "vertex ai", "credentials"),
        ({"gemini_model": "none"}, "gemini", "404"),
        ({"store": "gs://nobodys"}, "bucket", "404"),
        ({"musician": "endpoint", "endpoint": "none"}, "endpoint", "404"),
        ({"musician": "endpoint", "endpoint": "none"}, "musician", "404"),
        ({"musician": "lyria", "lyria_model": "none"}, "lyria", "404"),
        ({"location": "global"}, "region", "us-central1"),
        ({"location": "europe-west4"}, "bucket", "lies in us-central1"),
    ],
)
def test_what_is_wrong_has_a_name(gcp: Cloud, wrong: dict[str, str], what: str, says: str) -> None:
    finding = found(**wrong)[what]
    assert not finding.ok and says in finding.found and "wrong" not in finding.found


def test_a_service_that_hangs_is_given_up(gcp: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "PATIENCE_S", 0.3)
    gcp.vertex.fault = lambda request: HANG
    gcp.openai.fault = lambda request: Reply({}, 503)
    start = time.monotonic()
    findings = found(musician="endpoint", endpoint="1")
    assert time.monotonic() - start < 5
    assert not findings["musician"].ok and "no whole answer" in findings["musician"].found
    assert not findings["vertex ai"].ok and "no whole answer" in findings["vertex ai"].found
    assert not findings["openai"].ok and findings["bucket"].ok
    gcp.vertex.release()


@pytest.mark.parametrize(
    ("denied", "role"),
    [
        ("aiplatform.tuningJobs.create", "roles/aiplatform.user"),
        ("storage.objects.delete", "roles/storage.objectAdmin"),
        ("iam.serviceAccounts.signBlob", "roles/iam.serviceAccountTokenCreator"),
    ],
)
def test_a_permission_that_is_missing_is_named_with_the_role_that_has_it(gcp: Cloud, denied: str, role: str) -> None:
    gcp.iam.denied = {denied}
    finding = found()["permissions"]
    assert not finding.ok and f"{denied} ({role})" in finding.found
    assert finding.found.count("roles/") == 1


def test_only_what_the_settings_need_must_be_granted(gcp: Cloud) -> None:
    gcp.iam.denied = {"aiplatform.tuningJobs.create"}
    assert found(tuner="local")["permissions"].ok


def test_a_grant_on_the_service_account_alone_is_enough(gcp: Cloud) -> None:
    gcp.iam.denied = {"iam.serviceAccounts.actAs", "iam.serviceAccounts.signBlob"}
    gcp.iam.granted_on_account = {"iam.serviceAccounts.actAs"}
    assert "actAs" not in found()["permissions"].found
    gcp.iam.granted_on_account |= {"iam.serviceAccounts.signBlob"}
    assert found()["permissions"].ok


def test_where_resource_manager_may_not_be_asked_it_says_how(gcp: Cloud) -> None:
    gcp.iam.fault = lambda request: Reply(gcp.iam.error(403, "API has not been used"), 403)
    finding = found()["permissions"]
    assert not finding.ok and "gcloud services enable cloudresourcemanager.googleapis.com" in finding.found


def test_without_a_project_it_says_what_to_set(gcp: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MELODIFY_PROJECT")
    findings = found()
    for what in ("describer", "vertex ai", "permissions"):
        assert not findings[what].ok and "MELODIFY_PROJECT" in findings[what].found


def test_credentials_that_are_not_there_have_a_command(
    gcp: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MELODIFY_ACCESS_TOKEN")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    findings = found()
    for what in ("credentials", "vertex ai", "permissions", "gemini", "bucket"):
        assert not findings[what].ok and "gcloud auth application-default login" in findings[what].found


def test_an_endpoint_that_serves_nothing_is_no_musician(gcp: Cloud) -> None:
    name = "projects/melodify/locations/us-central1/endpoints/7"
    gcp.vertex.endpoints[name] = {"name": name, "deployedModels": []}
    finding = found(musician="endpoint", endpoint="7")["endpoint"]
    assert not finding.ok and "serves nothing" in finding.found
    gcp.vertex.endpoints[name]["deployedModels"] = [{"id": "1", "displayName": "melodify-musician"}]
    assert found(musician="endpoint", endpoint="7")["endpoint"].found == f"{name} serves melodify-musician"
    del gcp.vertex.endpoints[name]


def test_nothing_is_changed_or_paid(gcp: Cloud) -> None:
    for server in (gcp.vertex, gcp.openai, gcp.iam):
        server.log.clear()
    found(musician="lyria")
    assert {request.method for server in (gcp.vertex, gcp.openai) for request in server.log} == {"GET"}
    assert all(request.path.endswith(":testIamPermissions") for request in gcp.iam.log if request.method != "GET")
    assert gcp.iam.log


def test_the_command_ends_with_one_where_something_is_missing(gcp: Cloud) -> None:
    command = [str(Path(sys.executable).with_name("melodify")), "doctor"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    gcp.iam.denied = {"aiplatform.pipelineJobs.create"}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "aiplatform.pipelineJobs.create" in done.stdout
    assert gcp.iam.token not in done.stdout + done.stderr
