"""Deleting what a Vertex tuning job left behind: a served model costs money, or a quota, as long as it stands.

google-genai can neither take a model off an endpoint nor wait for a deletion, so endpoint and model go
through the REST interface of Vertex AI.
"""

from __future__ import annotations

import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melodify_lib.cloud import clients
from melodify_lib.cloud.tuned import CARD_FILE, VertexCard, load
from melodify_lib.errors import CloudError
from melodify_lib.store import FolderStore

if TYPE_CHECKING:
    from google import genai

    from melodify_lib.settings import Settings

POLL_S, PATIENCE_S = 2.0, 900.0
"""How often a deletion that is under way is looked at, and how long."""


def teardown(folder: Path, settings: Settings) -> list[str]:
    """Delete what the card in `folder` names: endpoint, model, uploaded files; then the card. Returns what went.

    What is gone already is passed over, so it can be done again after an error. A file that another
    job is being tuned on stays.
    """
    card = load(folder)
    deleted: list[str] = []
    client = clients.gemini(settings)
    with clients.google_errors(settings):
        if card.job is not None and card.asks.startswith("projects/"):
            rest = _Rest(settings)
            endpoint = rest.call("GET", card.asks)
            for one in (endpoint or {}).get("deployedModels", ()):
                rest.call("POST", f"{card.asks}:undeployModel", {"deployedModelId": one["id"]})
            names = [card.asks, *([card.model.split("@")[0]] if card.model else [])]
            deleted += [name for name in names if rest.call("DELETE", name) is not None]
        deleted += _delete_files(card, client, settings)
    FolderStore(folder).delete(CARD_FILE)
    return deleted


def _delete_files(card: VertexCard, client: genai.Client, settings: Settings) -> list[str]:
    """Delete the uploaded datasets that no job needs any more."""
    from google.api_core.exceptions import NotFound

    specs = [job.supervised_tuning_spec for job in client.tunings.list(config={"page_size": 100}) if not job.has_ended]
    needed = {uri for spec in specs if spec for uri in (spec.training_dataset_uri, spec.validation_dataset_uri)}
    deleted = []
    with clients.google_errors(settings, "Cloud Storage"), closing(clients.storage_client(settings)) as storage:
        for uri in card.files:
            if uri in needed:
                continue
            bucket, _, name = uri.removeprefix("gs://").partition("/")
            with suppress(NotFound):
                storage.bucket(bucket).blob(name).delete()
                deleted.append(uri)
    return deleted


class _Rest:
    """Vertex AI's REST interface."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.session = clients.session(settings)
        self.base = settings.vertex_base_url or f"https://{settings.location}-aiplatform.googleapis.com"

    def call(self, method: str, name: str, body: dict[str, str] | None = None) -> dict[str, Any] | None:
        """The answer; of a long-running operation, when it is done. None for what is not there."""
        answer = self._once(method, name, body)
        deadline = time.monotonic() + PATIENCE_S
        while answer is not None and "/operations/" in answer.get("name", "") and not answer.get("done"):
            if time.monotonic() > deadline:
                raise CloudError(
                    f"Vertex AI takes more than {PATIENCE_S:g} s to {method} {name}; tear it down again later"
                )
            time.sleep(POLL_S)
            answer = self._once("GET", answer["name"])
        if answer is not None and "error" in answer:
            raise CloudError(f"Vertex AI could not {method} {name}: {answer['error'].get('message')}")
        return answer

    def _once(self, method: str, name: str, body: dict[str, str] | None = None) -> dict[str, Any] | None:
        address = f"{self.base}/v1/{name}"
        response = self.session.request(method, address, json=body, timeout=clients.TIMEOUT_S)  # type: ignore[no-untyped-call]
        if response.status_code == 404:
            return None
        if not response.ok:
            raise CloudError(
                f"Vertex AI answered {response.status_code} to {method} {name}", status=response.status_code
            )
        answer: dict[str, Any] = response.json()
        return answer
