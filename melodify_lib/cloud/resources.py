"""What Melodify made in the cloud, by its labels: listed, priced, cleaned away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melodify_lib.cloud import clients, endpoints, jobs, labels, tuned
from melodify_lib.errors import CloudError, MelodifyError
from melodify_lib.tables import read_yaml

if TYPE_CHECKING:
    from google.genai.types import TuningJob

    from melodify_lib.settings import Settings

MACHINES = Path(__file__).with_name("machines.yaml")
_COLLECTIONS = {
    "endpoint": "endpoints",
    "model": "models",
    "pipeline job": "pipelineJobs",
    "tuning job": "tuningJobs",
}
_RUNNING = ("PENDING", "RUNNING", "QUEUED")
_BUSY = (*_RUNNING, "CANCELLING")
CANCELLING_S = 600.0
"""How long a job may take to end when it is cancelled: its tasks' machines are stopped first."""


@dataclass(frozen=True)
class Resource:
    """Something with our labels. `dollars_an_hour` is its list price; None where that is not known.

    `parts` are what must be deleted with it, by full name.
    """

    kind: str
    name: str
    run: str
    expires: date | None
    state: str
    dollars_an_hour: float | None = 0.0
    parts: tuple[str, ...] = ()

    def is_expired(self, today: date | None = None) -> bool:
        """Is its day over? One without a day is never."""
        return self.expires is not None and self.expires < (today or datetime.now(UTC).date())


def find(settings: Settings) -> list[Resource]:
    """Everything in the settings' project and place that carries our labels. Raises `CloudError`."""
    jobs = _tuning_jobs(settings)
    parts = {part for job in jobs for part in job.parts}  # carry the labels of their job
    found = [*_endpoints(settings), *_models(settings), *_pipeline_jobs(settings), *jobs]
    return [one for one in found if one.name not in parts]


def choose(
    resources: Iterable[Resource], *, run: str = "", everything: bool = False, today: date | None = None
) -> list[Resource]:
    """What is expired; or what `run` made; or all."""
    return [one for one in resources if everything or (one.run == run if run else one.is_expired(today))]


def clean(
    settings: Settings, resources: Sequence[Resource], on_done: Callable[[Resource, str], None]
) -> list[Resource]:
    """Delete `resources`, endpoints before what they serve; those that could not be. `on_done` hears of each."""
    left = []
    for one in resources:
        try:
            _CLEAN[one.kind](settings, one)
        except MelodifyError as error:
            left.append(one)
            on_done(one, f"not deleted: {error}")
        else:
            on_done(one, "deleted")
    return left


def _endpoints(settings: Settings) -> list[Resource]:
    from google.cloud.aiplatform_v1 import EndpointServiceClient

    client = clients.vertex(settings, EndpointServiceClient)
    found = clients.ask_google(
        settings, lambda: list(client.list_endpoints(parent=clients.parent(settings), retry=None))
    )
    table = read_yaml(MACHINES)
    return [
        _resource(
            settings,
            "endpoint",
            one,
            f"serves {len(one.deployed_models)}" if one.deployed_models else "serves nothing",
            _sum(_hourly(deployed.dedicated_resources, table) for deployed in one.deployed_models),
        )
        for one in _ours(found)
    ]


def _models(settings: Settings) -> list[Resource]:
    from google.cloud.aiplatform_v1 import ModelServiceClient

    client = clients.vertex(settings, ModelServiceClient)
    found = clients.ask_google(settings, lambda: list(client.list_models(parent=clients.parent(settings), retry=None)))
    return [_model(settings, client, one) for one in _ours(found)]


def _model(settings: Settings, client: Any, default: Any) -> Resource:
    """It is there as long as one of its versions must be; what is listed is only its default version."""
    versions = clients.ask_google(
        settings, lambda: list(client.list_model_versions(name=default.name.partition("@")[0], retry=None))
    ) or [default]
    expires = max((day for one in versions if (day := _expires(one)) is not None), default=None)
    state = f"{len(versions)} version{'s' if len(versions) > 1 else ''}"
    return replace(_resource(settings, "model", default, state), expires=expires)


def _pipeline_jobs(settings: Settings) -> list[Resource]:
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    client = clients.vertex(settings, PipelineServiceClient)
    found = clients.ask_google(
        settings, lambda: list(client.list_pipeline_jobs(parent=clients.parent(settings), retry=None))
    )
    return [
        _resource(settings, "pipeline job", one, state := jobs.pipeline_state(one), _of_job(state))
        for one in _ours(found)
    ]


def _tuning_jobs(settings: Settings) -> list[Resource]:
    """Jobs that run, and those whose model is still there."""
    resources = []
    for job in jobs.all_jobs(settings, clients.gemini(settings)):
        if labels.RUN not in (job.labels or {}):
            continue
        parts = _parts(settings, job)
        is_there = bool(parts) and endpoints.find_model(settings, parts[1]) is not None  # it goes last
        if is_there or not job.has_ended:
            state = job.state.value.removeprefix("JOB_STATE_") if job.state is not None else "UNKNOWN"
            resources.append(_resource(settings, "tuning job", job, state, _of_job(state), parts))
    return resources


def _parts(settings: Settings, job: TuningJob) -> tuple[str, ...]:
    """Endpoint and model that a tuning job made; nothing before it has."""
    if job.tuned_model is None:
        return ()
    endpoint = tuned.own(job.tuned_model.endpoint or "", "endpoints", settings)
    model = tuned.own(job.tuned_model.model or "", "models", settings)
    return (endpoint, model) if endpoint and model else ()


def _ours(found: Iterable[Any]) -> list[Any]:
    return [one for one in found if labels.RUN in one.labels]


def _of_job(state: str) -> float | None:
    """Dollars an hour of a job: nothing once it has ended, and until then not known."""
    return None if state in _BUSY else 0.0


def _resource(
    settings: Settings,
    kind: str,
    one: Any,
    state: str,
    dollars_an_hour: float | None = 0.0,
    parts: tuple[str, ...] = (),
) -> Resource:
    name = tuned.own(one.name, _COLLECTIONS[kind], settings)
    if name is None:
        raise CloudError(f"the answer of Vertex AI cannot be read: {one.name!r} is no {kind} of {settings.project!r}")
    return Resource(kind, name, one.labels[labels.RUN], _expires(one), state, dollars_an_hour, parts)


def _expires(one: Any) -> date | None:
    try:
        return date.fromisoformat(one.labels.get(labels.EXPIRES, ""))
    except ValueError:
        return None


def _hourly(resources: Any, table: dict[str, Any]) -> float | None:
    """Dollars an hour of the machines that are always there; None for what is in no table."""
    spec = resources.machine_spec
    machine = table["machines"].get(spec.machine_type)
    accelerator = table["accelerators"].get(spec.accelerator_type.name, None) if spec.accelerator_count else 0.0
    if machine is None or accelerator is None:
        return None
    return float((machine + spec.accelerator_count * accelerator) * max(resources.min_replica_count, 1))


def _sum(prices: Iterable[float | None]) -> float | None:
    total = 0.0
    for one in prices:
        if one is None:
            return None
        total += one
    return total


def _clean_pipeline_job(settings: Settings, one: Resource) -> None:
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    client = clients.vertex(settings, PipelineServiceClient)

    def get() -> Any:
        return client.get_pipeline_job(name=one.name, retry=None)

    if one.state in _RUNNING:
        clients.ask_google(settings, lambda: client.cancel_pipeline_job(name=one.name, retry=None))
    until = time.monotonic() + CANCELLING_S
    while (state := jobs.pipeline_state(clients.ask_google(settings, get))) in _BUSY:
        if time.monotonic() > until:
            raise CloudError(f"it is {state} {CANCELLING_S:g} s after it was cancelled; try again later")
        time.sleep(endpoints.POLL_S)
    operation = clients.ask_google(settings, lambda: client.delete_pipeline_job(name=one.name, retry=None))
    endpoints.wait_for(settings, operation, f"deleting {one.name}")


def _clean_tuning_job(settings: Settings, one: Resource) -> None:
    if one.state in _RUNNING:
        client = clients.gemini(settings)
        clients.ask_google(settings, lambda: client.tunings.cancel(name=one.name))
    if one.parts:
        endpoint, model = one.parts
        endpoints.withdraw(settings, endpoint, model)


_CLEAN: dict[str, Callable[[Settings, Resource], object]] = {
    "endpoint": lambda settings, one: endpoints.delete_endpoint(settings, one.name),
    "model": lambda settings, one: endpoints.delete_model(settings, one.name),
    "pipeline job": _clean_pipeline_job,
    "tuning job": _clean_tuning_job,
}
