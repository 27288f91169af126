"""Deleting what a Vertex tuning job left behind: a served model costs money, or a quota, as long as it stands."""

from __future__ import annotations

import re
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from melodify_lib.cloud import clients, endpoints, jobs, labels, tuned
from melodify_lib.cloud.tuned import CARD_FILE, VertexCard, load
from melodify_lib.errors import ModelError
from melodify_lib.store import FolderStore

if TYPE_CHECKING:
    from google.genai.client import Client
    from google.genai.types import TuningJob

    from melodify_lib.settings import Settings


def teardown(folder: Path, settings: Settings) -> list[str]:
    """Delete what the card in `folder` names: endpoint, model, uploaded files; then the card. Returns what went.

    What is gone already is passed over, so it can be done again after an error, and an endpoint that serves others
    too stays. So does a file that another job is being tuned on. Only what the service itself says that the card's
    job made is deleted, in the settings' own project; else `ModelError` names what does not match. Raises
    `CloudError` when the service fails.
    """
    card = load(folder)
    _check_files(card, settings)
    deleted: list[str] = []
    with closing(clients.gemini(settings)) as client:
        if card.job is not None:
            deleted += _delete_model(card, client, settings)
            deleted += _delete_files(card, client, settings)
    FolderStore(folder).delete(CARD_FILE)
    return deleted


def _check_files(card: VertexCard, settings: Settings) -> None:
    """Refuse a card whose files are no datasets of the settings' bucket: a card may be anybody's."""
    pattern = re.compile(rf"gs://{re.escape(settings.bucket)}/datasets/[0-9a-f]{{64}}\.jsonl")
    for uri in card.files:
        if card.job is None or not settings.bucket or not pattern.fullmatch(uri):
            raise ModelError(f"{CARD_FILE} names {uri!r}, no dataset in the bucket {settings.bucket!r}: not deleted")


def _delete_model(card: VertexCard, client: Client, settings: Settings) -> list[str]:
    """Delete what the card's job made, as the service tells it: the model, and the endpoint when it is then empty."""
    job, endpoint, model = (
        _own(settings, field, said, kind)
        for field, said, kind in (
            ("job", card.job, "tuningJobs"),
            ("asks", card.asks, "endpoints"),
            ("model", card.model, "models"),
        )
    )
    if endpoints.find_endpoint(settings, endpoint) is None and endpoints.find_model(settings, model) is None:
        return []
    _check_job(card, job, jobs.find_job(settings, client, job), settings)
    return endpoints.withdraw(settings, endpoint, model)


def _own(settings: Settings, field: str, said: str | None, kind: str) -> str:
    """What the card's `field` names, under the settings' project."""
    name = tuned.own(said or "", kind, settings)
    if name is None:
        raise ModelError(
            f"{CARD_FILE}: {field} {said!r} is not of project {settings.project!r} in {settings.location}: "
            "nothing is deleted"
        )
    return name


def _check_job(card: VertexCard, name: str, job: TuningJob | None, settings: Settings) -> None:
    """Refuse what the service does not know as made by the card's job."""
    found_labels = (job.labels if job is not None else None) or {}
    for label in (labels.REQUEST, labels.RUN):
        found = found_labels.get(label)
        if not found or found != card.labels.get(label):
            raise ModelError(
                f"the label {label} of {name} is {found!r}, in {CARD_FILE} it is {card.labels.get(label)!r}: "
                "nothing is deleted"
            )
    made = job.tuned_model if job is not None else None
    of_job = (made.endpoint or "", made.model or "") if made is not None else ("", "")
    for found, said, kind in zip(of_job, (card.asks, card.model or ""), ("endpoints", "models"), strict=True):
        if tuned.own(found, kind, settings) != tuned.own(said, kind, settings):
            raise ModelError(f"{name} made {found!r}, {CARD_FILE} names {said}: nothing is deleted")


def _delete_files(card: VertexCard, client: Client, settings: Settings) -> list[str]:
    """Delete the uploaded datasets that no job needs any more."""
    specs = [job.supervised_tuning_spec for job in jobs.all_jobs(settings, client) if not job.has_ended]
    needed = {uri for spec in specs if spec for uri in (spec.training_dataset_uri, spec.validation_dataset_uri)}
    with closing(clients.storage_client(settings)) as storage:

        def delete(uri: str) -> bool:
            bucket, _, name = uri.removeprefix("gs://").partition("/")
            storage.bucket(bucket).blob(name).delete(retry=None)
            return True

        return [
            uri
            for uri in card.files
            if uri not in needed and clients.find_google(settings, partial(delete, uri), service="Cloud Storage")
        ]
