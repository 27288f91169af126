"""What `melodify doctor` asks the cloud: only what is free and changes nothing, each with a time limit, all at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from melodify_lib.cloud import clients, endpoints, retry, tuned
from melodify_lib.cloud.objects import split
from melodify_lib.errors import CloudError, MelodifyError, MissingDependencyError, SettingsError

if TYPE_CHECKING:
    from melodify_lib.settings import Settings

PATIENCE_S = 8.0
"""How long one check may take."""
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")
_FORBIDDEN = 403
_CLIENTS = (
    "openai",
    "google.genai",
    "google.auth.transport.requests",
    "google.cloud.aiplatform_v1",
    "google.cloud.cloudquotas_v1",
    "google.cloud.resourcemanager_v3",
    "google.cloud.storage",
)
_ROLES = {
    "aiplatform.endpoints.predict": "roles/aiplatform.user",
    "aiplatform.tuningJobs.create": "roles/aiplatform.user",
    "aiplatform.pipelineJobs.create": "roles/aiplatform.user",
    "aiplatform.models.upload": "roles/aiplatform.user",
    "aiplatform.endpoints.deploy": "roles/aiplatform.user",
    "storage.objects.create": "roles/storage.objectAdmin",
    "storage.objects.get": "roles/storage.objectAdmin",
    "storage.objects.list": "roles/storage.objectAdmin",
    "storage.objects.delete": "roles/storage.objectAdmin",
    "iam.serviceAccounts.actAs": "roles/iam.serviceAccountUser",
    "iam.serviceAccounts.signBlob": "roles/iam.serviceAccountTokenCreator",
}
"""Permission → the role that has it."""

_QUOTAS = {
    "custom_model_training_cpus": "processors of pipelines",
    "custom_model_training_nvidia_l4_gpus": "L4 of pipelines",
    "custom_model_serving_cpus": "processors of endpoints",
    "custom_model_serving_nvidia_l4_gpus": "L4 of endpoints",
}
"""Metric of Vertex AI → what it limits for us; from memory of its quota page."""


def check(settings: Settings) -> list[tuple[bool | None, str, str]]:
    """Of each check that the settings call for: whether it is well, its name, and what was found or what to do.

    Where nothing is known, as nobody may see it, that is None.
    """
    google = _uses_google(settings)
    wanted = {
        "openai": (_openai, settings.captioner == "openai"),
        "credentials": (_credentials, google),
        "region": (_region, google),
        "vertex ai": (_vertex, google),
        "permissions": (_permissions, google),
        "gemini": (_gemini, settings.describer == "gemini" or settings.tuner == "vertex"),
        "lyria": (_lyria, settings.musician == "lyria"),
        "endpoint": (_endpoint, settings.musician == "endpoint"),
        "bucket": (_bucket, settings.store.startswith("gs://") or bool(settings.bucket)),
    }
    checks = {name: function for name, (function, is_wanted) in wanted.items() if is_wanted}
    with ThreadPoolExecutor(len(checks) or 1) as pool:
        found = pool.map(lambda one: tried(lambda: one(settings)), checks.values())
        asked = [(ok, name, text) for name, (ok, text) in zip(checks, found, strict=True)]
    return [*asked, *([_quotas(settings)] if google else [])]


def import_clients() -> None:
    """Import what the checks use; where two threads do that at once, one finds google.genai half there."""
    for name in _CLIENTS:
        with suppress(ModuleNotFoundError):  # the check that needs it says so
            import_module(name)


def tried(look: Callable[[], str]) -> tuple[bool, str]:
    """Whether `look` finds what it looks for in `PATIENCE_S`, and what it says or raises."""
    try:
        return True, retry.whole(look, PATIENCE_S)
    except MelodifyError as error:
        return False, str(error)


def _uses_google(settings: Settings) -> bool:
    stages = (settings.describer, settings.musician, settings.tuner, settings.runner)
    return bool(settings.project) or bool({"gemini", "endpoint", "lyria", "vertex"} & set(stages))


def _openai(settings: Settings) -> str:
    client = clients.openai(settings)

    def get() -> str:
        with clients.openai_errors(settings):
            return client.models.retrieve(settings.openai_model).id

    return f"the key is valid for {retry.ask(get, timeout=PATIENCE_S, deadline=0)}"


def _credentials(settings: Settings) -> str:
    if settings.access_token is not None:
        return "the token of MELODIFY_ACCESS_TOKEN; it expires, which Application Default Credentials do not"
    try:
        import google.auth
        from google.auth.transport.requests import Request
    except ModuleNotFoundError as error:
        raise MissingDependencyError(clients.EXTRA) from error
    with clients.google_errors(settings, "Google Cloud"):
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
    who = getattr(credentials, "service_account_email", "")
    return f"Application Default Credentials{f' of {who}' if who else ''}"


def _region(settings: Settings) -> str:
    if not _REGION.fullmatch(settings.location):
        raise SettingsError(
            f"{settings.location!r} is no region, such as us-central1, which jobs and endpoints need; "
            "set MELODIFY_LOCATION to one of `gcloud compute regions list`"
        )
    return settings.location


def _vertex(settings: Settings) -> str:
    place = clients.parent(settings)
    try:
        from google.cloud.aiplatform_v1 import EndpointServiceClient
    except ModuleNotFoundError as error:
        raise MissingDependencyError(clients.EXTRA) from error
    client = clients.vertex(settings, EndpointServiceClient)
    _ask(settings, lambda: client.list_endpoints(parent=place, retry=None))
    return f"{place} answers"


def _permissions(settings: Settings) -> str:
    """Those that the settings call for. A grant on the bucket or the service account alone is not seen from above."""
    wanted = set(_wanted(settings))
    missing = wanted - _of_project(settings, wanted)
    if of_bucket := {one for one in missing if one.startswith("storage.")}:
        missing -= _of_bucket(settings, of_bucket)
    if of_account := {one for one in missing if one.startswith("iam.")}:
        missing -= _of_account(settings, of_account)
    if missing:
        raise CloudError(
            f"not granted in {settings.project}: "
            + "; ".join(f"{name} ({_ROLES[name]})" for name in _ROLES if name in missing)
            + ": ask the project's owner for the roles (`gcloud projects add-iam-policy-binding`)"
        )
    return f"all {len(wanted)} that the settings need"


def _wanted(settings: Settings) -> Iterable[str]:
    if settings.describer == "gemini" or settings.musician in ("endpoint", "lyria"):
        yield "aiplatform.endpoints.predict"
    if settings.tuner == "vertex":
        yield "aiplatform.tuningJobs.create"
    if settings.runner == "vertex":
        yield "aiplatform.pipelineJobs.create"
    if settings.image:
        yield from ("aiplatform.models.upload", "aiplatform.endpoints.deploy")
    if _bucket_name(settings):
        yield from (name for name in _ROLES if name.startswith("storage."))
    if settings.service_account:
        yield from ("iam.serviceAccounts.actAs", "iam.serviceAccounts.signBlob")


def _of_project(settings: Settings, wanted: set[str]) -> set[str]:
    name = f"projects/{clients.parent(settings).split('/')[1]}"
    try:
        from google.cloud.resourcemanager_v3 import ProjectsClient
    except ModuleNotFoundError as error:
        raise MissingDependencyError(clients.EXTRA) from error
    address = settings.resource_manager_base_url or "cloudresourcemanager.googleapis.com"
    client = clients.vertex(settings, ProjectsClient, address=address)
    try:
        answer = clients.ask_google(
            settings,
            lambda: client.test_iam_permissions(resource=name, permissions=sorted(wanted), retry=None),
            service="Resource Manager",
            timeout=PATIENCE_S,
            deadline=0,
        )
    except CloudError as error:
        if error.status != _FORBIDDEN:
            raise
        raise CloudError(
            f"Resource Manager does not say what is granted in {settings.project} (403): the project is another's, or "
            "enable its API: gcloud services enable cloudresourcemanager.googleapis.com",
            status=_FORBIDDEN,
        ) from None
    return set(answer.permissions)


def _of_bucket(settings: Settings, wanted: set[str]) -> set[str]:
    bucket = clients.storage_client(settings).bucket(_bucket_name(settings))
    return _granted(settings, lambda: bucket.test_iam_permissions(sorted(wanted), retry=None), "Cloud Storage")


def _of_account(settings: Settings, wanted: set[str]) -> set[str]:
    def ask() -> list[str]:
        address = settings.iam_base_url or "https://iam.googleapis.com"
        answer = clients.post_iam(settings, address, "testIamPermissions", {"permissions": sorted(wanted)})
        with clients.readable("IAM"):
            return [str(one) for one in answer.get("permissions", [])]

    return _granted(settings, ask, "IAM")


def _granted(settings: Settings, ask: Callable[[], list[str]], service: str) -> set[str]:
    """What `ask` says is granted; nothing where it may not be asked, or there is no such thing."""
    try:
        return set(clients.ask_google(settings, ask, service=service, timeout=PATIENCE_S, deadline=0))
    except CloudError as error:
        if error.status in (_FORBIDDEN, 404):
            return set()
        raise


def _gemini(settings: Settings) -> str:
    asks = settings.gemini_model
    if settings.describer == "gemini" and settings.describer_model is not None:
        asks = tuned.load(settings.describer_model).asks
    if (name := tuned.own(asks, "endpoints", settings)) is not None:
        return _served(settings, name)
    return _model(settings, asks)


def _lyria(settings: Settings) -> str:
    return _model(settings, settings.lyria_model)


def _model(settings: Settings, name: str) -> str:
    client = clients.gemini(settings)
    _ask(settings, lambda: client.models.get(model=name))
    return f"{name} is there"


def _endpoint(settings: Settings) -> str:
    return _served(settings, endpoints.own_endpoint(settings))


def _served(settings: Settings, name: str) -> str:
    there = _ask(settings, lambda: endpoints.get(settings, name))
    with clients.readable("Vertex AI"):
        served = [one.display_name or one.id for one in there.deployed_models]
    if not served:
        raise CloudError(f"{name} serves nothing: deploy a model to it, or name another endpoint")
    return f"{name} serves {', '.join(served)}"


def _bucket(settings: Settings) -> str:
    """That it can be listed, and lies where the jobs run; to see where, a right is needed that not everybody has."""
    name = _bucket_name(settings)
    client = clients.storage_client(settings)
    _ask(settings, lambda: list(client.list_blobs(name, max_results=1, retry=None)), "Cloud Storage")
    try:
        location = _ask(settings, lambda: str(client.get_bucket(name, retry=None).location), "Cloud Storage").lower()
    except CloudError as error:
        if error.status != _FORBIDDEN:
            raise
        return f"gs://{name} can be listed; where it lies is not shown (storage.buckets.get)"
    continent = {"eu": "europe"}.get(location, location)
    if location != settings.location and not settings.location.startswith(f"{continent}-"):
        raise CloudError(
            f"gs://{name} can be listed, but lies in {location}, and jobs run in {settings.location}: make one there "
            f"(gcloud storage buckets create gs://… --location={settings.location}), or set MELODIFY_LOCATION"
        )
    return f"gs://{name} can be listed, in {location}"


def _bucket_name(settings: Settings) -> str:
    if settings.store.startswith("gs://"):
        return split(settings.store)[0]
    return settings.bucket


def _quotas(settings: Settings) -> tuple[bool | None, str, str]:
    """Those of `_QUOTAS` in the settings' region; one of 0 is not well. Nothing where they cannot be seen."""
    by_hand = (
        "see them with: gcloud alpha services quota list --service=aiplatform.googleapis.com "
        f"--consumer=projects/{settings.project}"
    )
    try:
        there = retry.whole(lambda: _limits(settings), PATIENCE_S)
    except MelodifyError as error:
        return None, "quotas", f"not seen ({error}); {by_hand}"
    if not there:
        return None, "quotas", f"none is named as expected; {by_hand}"
    said = ", ".join(f"{_QUOTAS[metric]}: {'no limit' if value < 0 else value}" for metric, value in there.items())
    if 0 in there.values():
        return False, "quotas", f"{said} in {settings.location}; ask for more, or choose another MELODIFY_LOCATION"
    return True, "quotas", f"{said} in {settings.location}"


def _limits(settings: Settings) -> dict[str, int]:
    """Metric → its limit in the region; -1 is none."""
    try:
        from google.cloud.cloudquotas_v1 import CloudQuotasClient
    except ModuleNotFoundError as error:
        raise MissingDependencyError(clients.EXTRA) from error
    client = clients.vertex(
        settings, CloudQuotasClient, address=settings.quotas_base_url or "cloudquotas.googleapis.com"
    )
    parent = f"projects/{settings.project}/locations/global/services/aiplatform.googleapis.com"
    found = {}
    with clients.readable("Cloud Quotas"):
        for one in _ask(settings, lambda: list(client.list_quota_infos(parent=parent, retry=None)), "Cloud Quotas"):
            metric = one.metric.removeprefix("aiplatform.googleapis.com/")
            for limit in one.dimensions_infos if metric in _QUOTAS else ():
                if settings.location in limit.applicable_locations:
                    found[metric] = int(limit.details.value)
    return found


def _ask(settings: Settings, request: Callable[[], retry.T], service: str = "Vertex AI") -> retry.T:
    return clients.ask_google(settings, request, service=service, timeout=PATIENCE_S, deadline=0)
