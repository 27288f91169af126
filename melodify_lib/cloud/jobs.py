"""Tuning jobs, and the states of pipeline jobs, as Vertex AI has them."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from melodify_lib.cloud import clients

if TYPE_CHECKING:
    from google.genai.client import Client
    from google.genai.types import TuningJob

    from melodify_lib.settings import Settings


def all_jobs(settings: Settings, client: Client) -> list[TuningJob]:
    """All tuning jobs, the newest first. Raises `CloudError`."""
    return clients.ask_google(settings, lambda: list(client.tunings.list(config={"page_size": 100})))


def get_job(settings: Settings, client: Client, name: str) -> TuningJob:
    """The job as it is. Raises `CloudError`, of status 404 where there is none."""
    return clients.ask_google(settings, lambda: _get(client, name))


def find_job(settings: Settings, client: Client, name: str) -> TuningJob | None:
    """As `get_job`; None where there is none."""
    return clients.find_google(settings, lambda: _get(client, name))


def whole(job: TuningJob) -> TuningJob:
    """`job`, which the client makes of any answer. Raises `ValueError` where that was no job."""
    if not job.name or job.state is None:
        raise ValueError("no name, or no state")
    return job


def pipeline_state(job: Any) -> str:
    """Such as ``RUNNING``, of a `google.cloud.aiplatform_v1.PipelineJob`."""
    return str(job.state.name).removeprefix("PIPELINE_STATE_")


def _get(client: Client, name: str) -> TuningJob:
    with redirect_stdout(sys.stderr):  # where IPython was imported the client prints a button; stdout is the caller's
        return whole(client.tunings.get(name=name))
