"""Deleting what a Vertex tuning job left behind: a served model costs money, or a quota, as long as it stands.

google-genai can neither take a model off an endpoint nor wait for a deletion, so endpoint and model go
through the REST interface of Vertex AI.
"""

from __future__ import annotations

import re
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melodify_lib.cloud import clients, labels, retry, tuned
from melodify_lib.cloud.tuned import CARD_FILE, VertexCard, load
from melodify_lib.errors import CloudError, ModelError
from melodify_lib.logs import redact
from melodify_lib.store import FolderStore

if TYPE_CHECKING:
    from google import genai

    from melodify_lib.settings import Settings

_OPERATION = re.compile(r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/(?:[A-Za-z]+/[0-9]+/)?operations/[0-9]+")
POLL_S, PATIENCE_S = 2.0, 900.0
"""How often a deletion that is under way is looked at, and how long."""


def teardown(folder: Path, settings: Settings) -> list[str]:
    """Delete what the card in `folder` names: endpoint, model, uploaded files; then the card. Returns what went.

    What is gone already is passed over, so it can be done again after an error. A file that another
    job is being tuned on stays. Only what the service itself says that the card's job made is deleted, in
    the settings' own project; else `ModelError` names what does not match.
    """
    card = load(folder)
    _check_files(card, settings)
    deleted: list[str] = []
    client = clients.gemini(settings)
    with clients.google_errors(settings):
        if card.job is not None:
            deleted += _delete_model(card, _Rest(settings), settings)
            deleted += _delete_files(card, client, settings)
    FolderStore(folder).delete(CARD_FILE)
    return deleted


def _check_files(card: VertexCard, settings: Settings) -> None:
    """Refuse a card whose files are no datasets of the settings' bucket: a card may be anybody's."""
    pattern = re.compile(rf"gs://{re.escape(settings.bucket)}/datasets/[0-9a-f]{{64}}\.jsonl")
    for uri in card.files:
        if card.job is None or not settings.bucket or not pattern.fullmatch(uri):
            raise ModelError(f"{CARD_FILE} names {uri!r}, no dataset in the bucket {settings.bucket!r}: not deleted")


def _delete_model(card: VertexCard, rest: _Rest, settings: Settings) -> list[str]:
    """Delete what the card's job made, as the service tells it: the model, and the endpoint when it is then empty."""
    wanted = {"job": (card.job, "tuningJobs"), "asks": (card.asks, "endpoints"), "model": (card.model, "models")}
    names = {}
    for field, (said, kind) in wanted.items():
        name = tuned.own(said or "", kind, settings)
        if name is None:
            raise ModelError(
                f"{CARD_FILE}: {field} {said!r} is not of project {settings.project!r} in {settings.location}: "
                "nothing is deleted"
            )
        names[field] = name
    job, endpoint, model = (rest.call("GET", names[field]) for field in wanted)
    if endpoint is None and model is None:
        return []
    _check_job(card, job, names, settings)
    for one in _dicts((endpoint or {}).get("deployedModels")):
        if tuned.own(str(one.get("model")), "models", settings) == names["model"]:
            if not isinstance(one.get("id"), str):
                raise CloudError(f"Vertex AI names no id of what {names['asks']} serves; look at it in the console")
            rest.call("POST", f"{names['asks']}:undeployModel", {"deployedModelId": one["id"]})
    deleted = []
    endpoint = rest.call("GET", names["asks"])
    if endpoint is not None and not endpoint.get("deployedModels"):  # others may be served by it too
        rest.call("DELETE", names["asks"])
        deleted.append(card.asks)
    if rest.call("DELETE", names["model"]) is not None:
        deleted.append(str(card.model).split("@")[0])
    return deleted


def _check_job(card: VertexCard, job: dict[str, Any] | None, names: dict[str, str], settings: Settings) -> None:
    """Refuse what the service does not know as made by the card's job."""
    found_labels, made = ((job or {}).get(field) for field in ("labels", "tunedModel"))
    for label in (labels.REQUEST, labels.RUN):
        found = found_labels.get(label) if isinstance(found_labels, dict) else None
        if not found or found != card.labels.get(label):
            raise ModelError(
                f"the label {label} of {names['job']} is {found!r}, in {CARD_FILE} it is {card.labels.get(label)!r}: "
                "nothing is deleted"
            )
    for field, of_job, kind in (("asks", "endpoint", "endpoints"), ("model", "model", "models")):
        found = made.get(of_job) if isinstance(made, dict) else None
        if tuned.own(str(found), kind, settings) != names[field]:
            raise ModelError(f"{names['job']} made {found!r}, {CARD_FILE} names {names[field]}: nothing is deleted")


def _dicts(value: Any) -> list[dict[str, Any]]:
    """A list of objects, as an answer should have it."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise CloudError("the answer of Vertex AI cannot be read: deployedModels is no list of objects")
    return value


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
        while answer is not None and "/operations/" in (running := answer.get("name", "")) and not answer.get("done"):
            if not _OPERATION.fullmatch(running):
                raise CloudError("the answer of Vertex AI cannot be read: an operation has no proper name")
            if time.monotonic() > deadline:
                raise CloudError(
                    f"Vertex AI takes more than {PATIENCE_S:g} s to {method} {name}; tear it down again later"
                )
            time.sleep(POLL_S)
            answer = self._once("GET", running)
        if answer is not None and "error" in answer:
            error = answer["error"]
            said = error.get("message") if isinstance(error, dict) else error
            said = redact(" ".join(str(said).split()), self.settings)[:300]
            raise CloudError(f"Vertex AI could not {method} {name}: {said}")
        return answer

    def _once(self, method: str, name: str, body: dict[str, str] | None = None) -> dict[str, Any] | None:
        address = f"{self.base}/v1/{name}"
        response = self.session.request(method, address, json=body, timeout=retry.TIMEOUT_S)  # type: ignore[no-untyped-call]
        if response.status_code == 404:
            return None
        if not response.ok:
            raise CloudError(
                f"Vertex AI answered {response.status_code} to {method} {name}", status=response.status_code
            )
        answer = response.json()
        if not isinstance(answer, dict) or not isinstance(answer.get("name", ""), str):
            raise CloudError(f"the answer of Vertex AI to {method} {name} cannot be read: not the object it should be")
        return answer
