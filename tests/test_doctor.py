"""`melodify doctor` where the settings use the cloud."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from emulators.cloud import Cloud, cloud
from emulators.server import HANG, Reply
from melodify_lib.cloud import checks
from melodify_lib.doctor import Finding, examine
from melodify_lib.settings import Settings


@pytest.fixture(scope="module")
def servers() -> Iterator[Cloud]:
    with cloud() as running:
        yield running


@pytest.fixture
def gcp(servers: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.delenv("MELODIFY_STORE")
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    yield servers
    servers.vertex.fault = servers.openai.fault = lambda request: None


def found(**settings: object) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(Settings.load(**settings))}


def test_all_is_well(gcp: Cloud) -> None:
    findings = found()
    assert all(finding.ok for finding in findings.values()), findings
    assert {"openai", "vertex ai", "gemini", "bucket"} <= set(findings)
    assert "gs://melodify can be listed" in findings["bucket"].found


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
    findings = found()
    assert time.monotonic() - start < 20
    assert not findings["vertex ai"].ok and "no whole answer" in findings["vertex ai"].found
    assert not findings["openai"].ok and findings["bucket"].ok
    gcp.vertex.release()
