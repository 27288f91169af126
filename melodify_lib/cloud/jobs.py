"""Tuning jobs, as Vertex AI has them."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from melodify_lib.cloud import clients
from melodify_lib.errors import CloudError

if TYPE_CHECKING:
    from google.genai.client import Client
    from google.genai.types import TuningJob

    from melodify_lib.settings import Settings


def all_jobs(settings: Settings, client: Client) -> list[TuningJob]:
    """All tuning jobs, the newest first. Raises `CloudError`."""
    return clients.ask_google(settings, lambda: list(client.tunings.list(config={"page_size": 100})))


def get_job(settings: Settings, client: Client, name: str) -> TuningJob:
    """The job as it is. Raises `CloudError`, of status 404 where there is none."""
    job = find_job(settings, client, name)
    if job is None:
        raise CloudError(f"there is no tuning job {name}", status=404)
    return job


def find_job(settings: Settings, client: Client, name: str) -> TuningJob | None:
    """As `get_job`; None where there is none."""
    with redirect_stdout(sys.stderr):  # where IPython was imported the client prints a button; stdout is the caller's
        return clients.find_google(settings, lambda: client.tunings.get(name=name))
