"""The API and its OpenAPI document say the same: Schemathesis tries every operation, right and wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webapp
from django.test import Client
from jsonschema import Draft202012Validator
from webserver import WebServer, web_server


@pytest.fixture
def document() -> dict[str, Any]:
    answer = Client().get("/api/v1/schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    assert answer.status_code == 200
    return dict(json.loads(answer.content))


def test_the_document_describes_every_operation_and_who_may(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    operations = {(path, method): one for path, methods in document["paths"].items() for method, one in methods.items()}
    assert len(operations) == 11
    for (path, method), one in operations.items():
        assert one["description"], (path, method)
        is_for_anybody = (method, path) in (("post", "/api/v1/tracks/"), ("post", "/api/v1/token/"))
        assert ({} in one.get("security", [{}])) == is_for_anybody, (path, method)
        assert {"200", "201", "202", "204"} & set(one["responses"])
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """Without workers: what is ordered waits."""
    free = {"WEB_REQUESTS_PER_MINUTE": 10**6, "WEB_SONGS_PER_HOUR": 10**6, "WEB_WAITING": 10_000, "WEB_WORKERS": 0}
    with web_server(tmp_path_factory.mktemp("schema"), until_ready=False, **free) as running:
        running.wait_for(lambda: running.ready() == 503)
        yield running


def test_schemathesis_finds_nothing(server: WebServer, tmp_path: Path) -> None:
    token = server.order(webapp.picture(), seconds=4).json()["token"]
    # What is well-formed may still be no picture, or longer than this server makes.
    (tmp_path / "schemathesis.toml").write_text(
        """[checks.positive_data_acceptance]
        expected-statuses = ["2xx", "302", "400", "401", "404", "416", "422"]
        """
    )
    command = ["-m", "schemathesis.cli", "run", f"{server.url}/api/v1/schema/", "--max-examples=10", "--seed=1"]
    done = subprocess.run(
        [sys.executable, *command, f"--header=Authorization: Bearer {token}", "--no-color"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
    assert "Traceback" not in server.log()
