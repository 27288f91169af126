"""What `melodify doctor` asks the cloud: only what is free, each with a time limit, all at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from melodify_lib.cloud import clients, endpoints, retry
from melodify_lib.errors import MelodifyError

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

PATIENCE_S = 10.0
"""How long one check may take."""


def check(settings: Settings) -> list[tuple[bool, str, str]]:
    """Of each check that the settings call for: whether it is well, its name, and what was found or what to do."""
    wanted = {
        "openai": (_openai, settings.captioner == "openai"),
        "vertex ai": (_vertex, bool(settings.project)),
        "gemini": (_gemini, settings.describer == "gemini"),
        "endpoint": (_endpoint, settings.musician == "endpoint"),
        "bucket": (_bucket, settings.store.startswith("gs://") or bool(settings.bucket)),
    }
    checks = {name: function for name, (function, is_wanted) in wanted.items() if is_wanted}
    with ThreadPoolExecutor(len(checks) or 1) as pool:
        found = pool.map(lambda one: _try(one, settings), checks.values())
        return [(ok, name, text) for name, (ok, text) in zip(checks, found, strict=True)]


def _try(one: Callable[[Settings], str], settings: Settings) -> tuple[bool, str]:
    try:
        return True, one(settings)
    except MelodifyError as error:
        return False, str(error)


def _openai(settings: Settings) -> str:
    client = clients.openai(settings)

    def get() -> str:
        with clients.openai_errors(settings):
            return client.models.retrieve(settings.openai_model).id

    return f"the key is valid for {retry.ask(get, timeout=PATIENCE_S, deadline=0)}"


def _vertex(settings: Settings) -> str:
    from google.cloud.aiplatform_v1 import EndpointServiceClient

    client = clients.vertex(settings, EndpointServiceClient)
    place = clients.parent(settings)
    _ask(settings, lambda: client.list_endpoints(parent=place, retry=None))
    return f"{place} answers"


def _gemini(settings: Settings) -> str:
    client = clients.gemini(settings)
    _ask(settings, lambda: client.models.get(model=settings.gemini_model))
    return f"{settings.gemini_model} is there"


def _endpoint(settings: Settings) -> str:
    name = endpoints.own_endpoint(settings)
    there = endpoints.get(settings, name)
    return f"{name} serves {len(there.deployed_models)}"


def _bucket(settings: Settings) -> str:
    store = settings.store if settings.store.startswith("gs://") else f"gs://{settings.bucket}"
    bucket, _, prefix = store.removeprefix("gs://").partition("/")
    client = clients.storage_client(settings)
    _ask(settings, lambda: list(client.list_blobs(bucket, prefix=prefix, max_results=1, retry=None)), "Cloud Storage")
    return f"{store} can be listed"


def _ask(settings: Settings, request: Callable[[], object], service: str = "Vertex AI") -> None:
    clients.ask_google(settings, request, service=service, timeout=PATIENCE_S, deadline=0)
