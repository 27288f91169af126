"""A run of the pipeline on Vertex AI Pipelines.

A job's id is the hash of all that was asked: the same request, by a client that was killed perhaps, finds the first
job, and nothing is paid for twice.
"""

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from melodify_lib.cloud import clients, labels
from melodify_lib.errors import PipelineError, SettingsError
from melodify_lib.logs import redact
from melodify_lib.nouns import sha256
from melodify_lib.settings import Settings
from pipelines.graph import TASKS, music_pipeline

log = logging.getLogger("melodify_lib.pipelines")

POLL_S = 10.0
"""How often a job is looked at."""
FOLDER = "pipeline"
"""Under the bucket: what the tasks hand on to each other."""
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "PAUSED")
_SAY = {"SUCCEEDED": "done", "SKIPPED": "cached"}


def run(
    parameters: dict[str, Any], settings: Settings, *, caching: bool, request: str, on_event: Callable[[str], None]
) -> tuple[dict[str, str], str]:
    """Submit, and wait: each task's state, and the address of the song's card. An interrupt cancels the job.

    Raises `PipelineError`, naming the task that failed, and where its log is.
    """
    name = submit(parameters, settings, caching=caching, request=request, on_event=on_event)
    try:
        return wait(name, settings, on_event=on_event)
    except KeyboardInterrupt:
        cancel(name, settings)
        raise


def submit(
    parameters: dict[str, Any],
    settings: Settings,
    *,
    caching: bool = True,
    request: str = "",
    on_event: Callable[[str], None] = lambda text: None,
) -> str:
    """Order the job, unless the same is there and did not fail; its name."""
    from google.api_core.exceptions import Conflict

    if not settings.image or not settings.bucket:
        raise SettingsError(
            "a run on Vertex AI needs an image with melodify and a bucket: set MELODIFY_IMAGE and MELODIFY_BUCKET"
        )
    client = _client(settings)
    spec = _spec(settings, caching)
    digest = sha256(json.dumps([spec, parameters, request], sort_keys=True).encode())
    job: dict[str, Any] = {
        "display_name": "melodify-music",
        "pipeline_spec": spec,
        "runtime_config": {
            "gcs_output_directory": f"gs://{settings.bucket}/{FOLDER}",
            "parameter_values": parameters,
            "failure_policy": "PIPELINE_FAILURE_POLICY_FAIL_FAST",
        },
        "labels": labels.labels(settings, run=digest[:16], request=digest[:32]),
        "service_account": settings.service_account,
    }

    def create(job_id: str) -> None:
        with suppress(Conflict):  # another was faster, or our own, whose answer was lost
            client.create_pipeline_job(
                parent=clients.parent(settings), pipeline_job=_job(job), pipeline_job_id=job_id, retry=None
            )

    for attempt in range(1, 100):
        job_id = f"melodify-music-{digest[:24]}{f'-{attempt}' if attempt > 1 else ''}"
        name = f"{clients.parent(settings)}/pipelineJobs/{job_id}"
        there = clients.find_google(settings, partial(client.get_pipeline_job, name=name, retry=None))
        if there is None:
            clients.ask_google(settings, partial(create, job_id))
            log.info("submitted %s", name)
            on_event(f"submitted: {name}")
            return name
        if state(there) not in ("FAILED", "CANCELLED"):
            on_event(f"submitted before: {name}")
            return name
    raise PipelineError(f"the same run failed 99 times; look at {name}")


def wait(
    name: str, settings: Settings, *, on_event: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, str], str]:
    """Watch a job to its end: each task's state, and the address of the song's card."""
    said: dict[str, str] = {}
    while True:
        job = get(name, settings)
        details = {one.task_name: one for one in job.job_detail.task_details if one.task_name in TASKS}
        states = {task: _state_of(details[task]) for task in TASKS if task in details}
        for task, now in states.items():
            if said.get(task) != now:
                on_event(f"{task}: {now}")
        said = states
        if state(job) in _OVER:
            break
        time.sleep(POLL_S)
    if state(job) != "SUCCEEDED":
        raise PipelineError(_reason(job, details, settings))
    with clients.readable("Vertex AI"):
        return states, str(details["play-and-store"].outputs["song"].artifacts[0].uri)


def get(name: str, settings: Settings) -> Any:
    """The job as it is, a `google.cloud.aiplatform_v1.PipelineJob`."""
    client = _client(settings)

    def look() -> Any:
        job = client.get_pipeline_job(name=name, retry=None)
        if not job.name:
            raise ValueError("no job")
        return job

    return clients.ask_google(settings, look)


def state(job: Any) -> str:
    """Such as ``RUNNING``."""
    return str(job.state.name).removeprefix("PIPELINE_STATE_")


def cancel(name: str, settings: Settings) -> None:
    """Ask the service to stop a job."""
    client = _client(settings)
    clients.ask_google(settings, lambda: client.cancel_pipeline_job(name=name, retry=None))


def log_address(name: str, settings: Settings) -> str:
    """Where the console shows a job, its tasks and their logs."""
    return (
        f"https://console.cloud.google.com/vertex-ai/locations/{settings.location}/pipelines/runs/"
        f"{name.rpartition('/')[2]}?project={settings.project}"
    )


def _client(settings: Settings) -> Any:
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    return clients.vertex(settings, PipelineServiceClient)


def _job(fields: dict[str, Any]) -> Any:
    from google.cloud.aiplatform_v1 import PipelineJob
    from google.protobuf import json_format

    message = PipelineJob.pb(PipelineJob())
    return PipelineJob.wrap(json_format.ParseDict(fields, message))


def _spec(settings: Settings, caching: bool) -> dict[str, Any]:
    """The compiled pipeline, as a job carries it."""
    from google.protobuf import json_format

    spec: dict[str, Any] = json_format.MessageToDict(music_pipeline(settings.image).pipeline_spec)
    for task in spec["root"]["dag"]["tasks"].values():
        task["cachingOptions"] = {"enableCache": caching}
    return spec


def _state_of(detail: Any) -> str:
    name = str(detail.state.name)
    return _SAY.get(name, name.lower())


def _reason(job: Any, details: dict[str, Any], settings: Settings) -> str:
    failed = [task for task, one in details.items() if one.state.name == "FAILED"]
    said = details[failed[0]].error.message if failed else job.error.message
    said = redact(" ".join(said.split()), settings)[:500] or "no reason given"
    what = f"task {failed[0]!r} failed" if failed else f"the run was {state(job).lower()}"
    return f"{what}: {said}; its log: {log_address(job.name, settings)}"
