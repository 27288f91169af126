"""The API and its OpenAPI document say the same: Schemathesis tries every operation, right and wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
import webapp
from django.core.cache import cache
from django.test import Client
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator
from schemathesis.config import ChecksConfig

from web.tracks import jobs
from web.tracks.jobs import Options
from web.tracks.models import Track
from web.tracks.visitors import Visitor
from web.wsgi import application

pytestmark = pytest.mark.django_db
VISITOR = Visitor.new()


@pytest.fixture
def document() -> dict[str, Any]:
    answer = Client().get("/api/v1/schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    assert answer.status_code == 200
    return dict(json.loads(answer.content))


def test_the_document_describes_every_operation_and_who_may(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    operations = {(path, method): one for path, methods in document["paths"].items() for method, one in methods.items()}
    assert len(operations) == 9
    for (path, method), one in operations.items():
        assert one["description"], (path, method)
        assert ({} in one["security"]) == (path == "/api/v1/tracks/" and method == "post"), (path, method)
        assert {"200", "202", "204"} & set(one["responses"])
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.fixture(autouse=True)
def _no_limit(settings: Any) -> Iterator[None]:
    settings.CONFIG = webapp.configure(requests_per_minute=10**6, songs_per_hour=10**6, waiting=10_000)
    cache.clear()
    yield
    cache.clear()


def checks() -> ChecksConfig:
    """All. But what is well-formed may still be no picture (422), or longer than this server makes (400)."""
    return ChecksConfig.from_dict(
        {"positive_data_acceptance": {"expected-statuses": ["2xx", "302", "400", "401", "404", "416", "422"]}}
    )


@pytest.mark.parametrize("is_known", [True, False], ids=["a visitor", "anybody"])
def test_schemathesis_finds_nothing(document: dict[str, Any], is_known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = schemathesis.Config()
    configuration.projects.default.checks = checks()
    schema = schemathesis.openapi.from_dict(document, config=configuration)
    schema.app = application
    headers = {"Authorization": f"Bearer {VISITOR.key}"} if is_known else {}
    for result in schema.get_all_operations():
        operation = result.ok()
        case_of = operation.as_strategy()
        raise NotImplementedError(case_of, headers, settings, HealthCheck, timedelta, jobs, Options, Track, monkeypatch)
