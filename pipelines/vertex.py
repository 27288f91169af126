"""A run of one of our pipelines on Vertex AI Pipelines.

A job's id is the hash of all that was asked: the same request, by a client that was killed perhaps, finds the first
job, and nothing is paid for twice.
"""

import itertools
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import quote

from melodify_lib.cloud import clients, labels
from melodify_lib.cloud.jobs import pipeline_state
from melodify_lib.errors import InputError, PipelineError, SettingsError
from melodify_lib.logs import redact
from melodify_lib.music.finish import SEED_LIMIT
from melodify_lib.nouns import sha256
from melodify_lib.settings import Settings
from pipelines.graph import spec_of, tasks_of

log = logging.getLogger("melodify_lib.pipelines")

POLL_S = 10.0
"""How often a job is looked at."""
LOOK_S = 1.0
"""How often whoever waits is asked whether to go on."""
WAIT_S = 7 * 86_400.0
"""How long it is looked at in all: no run of ours takes that long, and one may wait for a machine for ever."""
FOLDER = "pipeline"
"""Under the bucket: what the tasks hand on to each other."""
OnLook = Callable[[dict[str, str], dict[str, str]], None]
"""Hears each task's state, and the addresses of what tasks made, by ``task.output``."""
_OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "PAUSED")
_LOST = ("FAILED", "CANCELLING", "CANCELLED")
_SAY = {"SUCCEEDED": "done", "SKIPPED": "cached"}


def run(
    pipeline: Any,
    parameters: dict[str, Any],
    settings: Settings,
    *,
    request: str,
    is_whole: Callable[[str], bool],
    on_event: Callable[[str], None],
    on_look: OnLook = lambda states, outputs: None,
) -> tuple[dict[str, str], str]:
    """`submit`, and `wait`. An interrupt, or a `CancelledError` of a caller's function, cancels the job.

    A client that is killed, or loses the connection, leaves the job running: the same call finds it.
    """
    name = submit(pipeline, parameters, settings, request=request, is_whole=is_whole, on_event=on_event)
    try:
        return wait(name, settings, on_event=on_event, on_look=on_look)
    except (KeyboardInterrupt, CancelledError):
        cancel(name, settings)
        raise


def submit(
    pipeline: Any,
    parameters: dict[str, Any],
    settings: Settings,
    *,
    request: str = "",
    is_whole: Callable[[str], bool] = lambda address: True,
    on_event: Callable[[str], None] = lambda text: None,
) -> str:
    """Order a job, unless the same is there; its name. One that failed, or whose output is no longer whole, is not.

    `is_whole` is asked about the address of a finished job's output. Raises `SettingsError` or `InputError`, before
    anything is ordered, for what a job on Vertex AI cannot do.
    """
    from google.api_core.exceptions import Conflict

    if not settings.image or not settings.bucket:
        raise SettingsError(
            "a run on Vertex AI needs an image with melodify and a bucket: set MELODIFY_IMAGE and MELODIFY_BUCKET"
        )
    if not settings.store.startswith("gs://"):
        raise SettingsError(
            f"a job on Vertex AI cannot store in {settings.store}, which is lost with its machine: set MELODIFY_STORE "
            "to a gs:// address"
        )
    for what, value in parameters.items():
        if isinstance(value, int) and value >= SEED_LIMIT:
            raise InputError(f"{what} must be below 2**53 on Vertex AI, where numbers are floats; got {value}")
    client = _client(settings)
    spec = spec_of(pipeline)
    digest = sha256(json.dumps([spec, parameters, request], sort_keys=True).encode())
    title = spec["pipelineInfo"]["name"]
    job: dict[str, Any] = {
        "display_name": title,
        "pipeline_spec": spec,
        "runtime_config": {
            "gcs_output_directory": f"gs://{settings.bucket}/{FOLDER}",
            "parameter_values": parameters,
            "failure_policy": "PIPELINE_FAILURE_POLICY_FAIL_SLOW",  # what does not need the failed task goes on
        },
        "labels": labels.labels(settings, digest[:32]),
        "service_account": settings.service_account,
    }

    def create(job_id: str) -> None:
        with suppress(Conflict):  # another was faster, or our own, whose answer was lost
            client.create_pipeline_job(
                parent=clients.parent(settings), pipeline_job=_job(job), pipeline_job_id=job_id, retry=None
            )

    for attempt in itertools.count(1):
        job_id = f"{title}-{digest[:24]}{f'-{attempt}' if attempt > 1 else ''}"
        name = f"{clients.parent(settings)}/pipelineJobs/{job_id}"
        there = clients.find_google(settings, partial(client.get_pipeline_job, name=name, retry=None))
        if there is None:
            clients.ask_google(settings, partial(create, job_id))
            log.info("submitted %s", name)
        elif pipeline_state(there) in _LOST or (pipeline_state(there) == "SUCCEEDED" and not is_whole(_output(there))):
            continue
        submitted = "submitted" if there is None else "submitted before"
        on_event(f"{submitted}: {name}; its tasks and logs: {address(name, settings)}")
        break
    return name


def wait(
    name: str,
    settings: Settings,
    *,
    on_event: Callable[[str], None] = lambda text: None,
    on_look: OnLook = lambda states, outputs: None,
) -> tuple[dict[str, str], str]:
    """Watch a job to its end: each task's state ("done" or "cached"), and the address of the pipeline's output.

    `on_look` hears what is known every second. Raises `PipelineError`, naming the task that failed and
    where its log is, or when `WAIT_S` are over.
    """
    said: dict[tuple[int, str], str] = {}  # a task in a loop is there many times
    until = time.monotonic() + WAIT_S
    while True:
        job = get(name, settings)
        for one in (details := _details(job)):
            now, task = _state_of(one), (one.task_id, one.task_name)
            if said.get(task) != now:
                log_there = f"; log: {task_log(one, job, settings)}" if now in ("running", "failed") else ""
                on_event(f"{one.task_name}: {now}{log_there}")
            said[task] = now
        if pipeline_state(job) in _OVER:
            break
        if time.monotonic() > until:
            raise PipelineError(
                f"the run is {pipeline_state(job).lower()} after {WAIT_S:g} s, and goes on: the same command waits on, "
                f"`melodify cloud clean --all` ends it; look at {address(name, settings)}"
            )
        again = time.monotonic() + POLL_S
        while time.monotonic() < again:
            on_look({one.task_name: _state_of(one) for one in details}, _made(details))
            time.sleep(min(LOOK_S, POLL_S))
    if pipeline_state(job) != "SUCCEEDED":
        raise PipelineError(_reason(job, details, settings))
    states = {one.task_name: "done" if _state_of(one) == "done" else "cached" for one in details}
    return states, _output(job)


def get(name: str, settings: Settings) -> Any:
    """The job as it is, a `google.cloud.aiplatform_v1.PipelineJob`."""
    client = _client(settings)

    def look() -> Any:
        job = client.get_pipeline_job(name=name, retry=None)
        if not job.name:
            raise ValueError("no job")
        return job

    return clients.ask_google(settings, look)


def cancel(name: str, settings: Settings) -> None:
    """Ask the service to stop a job."""
    client = _client(settings)
    clients.ask_google(settings, lambda: client.cancel_pipeline_job(name=name, retry=None))


def task_log(detail: Any, job: Any, settings: Settings) -> str:
    """Where the console shows what a task logged; the job's page until the task has a machine."""
    number = str(detail.executor_detail.container_detail.main_job).rpartition("/")[2]
    if not number.isdigit():
        return address(job.name, settings)
    query = quote(f'resource.type="ml_job" AND resource.labels.job_id="{number}"', safe="")
    return f"https://console.cloud.google.com/logs/query;query={query}?project={settings.project}"


def address(name: str, settings: Settings) -> str:
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


def _details(job: Any) -> list[Any]:
    """What is said of each task that runs, in their order."""
    with clients.readable("Vertex AI"):
        tasks = tasks_of(_spec(job))
    found = [one for one in job.job_detail.task_details if one.task_name in tasks]
    return sorted(found, key=lambda one: (tasks.index(one.task_name), one.task_id))


def _made(details: list[Any]) -> dict[str, str]:
    """Addresses of the tasks' artifacts, as far as there are."""
    return {
        f"{one.task_name}.{name}": str(output.artifacts[0].uri)
        for one in details
        for name, output in one.outputs.items()
        if output.artifacts
    }


def _output(job: Any) -> str:
    """Address of the artifact that the pipeline gives."""
    with clients.readable("Vertex AI"):
        (output,) = _spec(job)["root"]["dag"]["outputs"]["artifacts"]["Output"]["artifactSelectors"]
        (task,) = [one for one in _details(job) if one.task_name == output["producerSubtask"]]
        return str(task.outputs[output["outputArtifactKey"]].artifacts[0].uri)


def _spec(job: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    spec: dict[str, Any] = json_format.MessageToDict(job._pb.pipeline_spec)
    return spec


def _state_of(detail: Any) -> str:
    name = str(detail.state.name)
    return _SAY.get(name, name.lower())


def _reason(job: Any, details: list[Any], settings: Settings) -> str:
    """The service says little more than that a task's process ended: what happened stands in its log."""
    failed = next((one for one in details if one.state.name == "FAILED"), None)
    message = failed.error.message if failed is not None else job.error.message
    said = redact(" ".join(message.split()), settings)[:500] or "no reason given"
    if failed is None:
        return f"the run was {pipeline_state(job).lower()}: {said}; its log: {address(job.name, settings)}"
    return f"task {failed.task_name!r} failed: {said}; what it logged: {task_log(failed, job, settings)}"
