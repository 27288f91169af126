"""The musician's image on Vertex AI: registered, deployed, given its share of the traffic, asked, taken away.

Model and endpoint have a name of our own choosing (`Settings.serving_name`), and a version carries the hash of what it
was made of: what was asked for before, by a client that was killed perhaps, is found and not made a second time.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from melodify_lib.cloud import clients, labels, tuned
from melodify_lib.errors import CloudError, InputError, SettingsError
from melodify_lib.logs import redact, traceparent
from melodify_lib.nouns import sha256

if TYPE_CHECKING:
    from google.api_core.operation import Operation
    from google.cloud.aiplatform_v1.types import Endpoint, Model

    from melodify_lib.settings import Settings

PORT, PREDICT_ROUTE, HEALTH_ROUTE = 8080, "/predict", "/health"
"""What the image serves; see serving/."""
REQUEST_MAX_BYTES = 1_500_000
SHARED_S = 60.0
"""How long a prediction may take on an endpoint that shares its address with others; ours have their own."""
POLL_S, POLL_MAX_S, OPERATION_S = 2.0, 20.0, 3600.0
"""How often a long-running operation is looked at, at first and at last, and how long; a deployment takes minutes."""
_CONFLICT = 409
_DEDICATED = re.compile(r"(?:https://)?[a-z0-9-]+\.[a-z0-9-]+-[a-z0-9]+\.prediction\.vertexai\.goog")

OnEvent = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """Predictions, and the id of the deployment that made them: of those that share the traffic, by chance."""

    predictions: list[Any]
    deployed: str


def register(
    settings: Settings,
    image: str,
    *,
    artifacts: str = "",
    environment: Mapping[str, str] | None = None,
    aliases: Sequence[str] = (),
    on_event: OnEvent = lambda text: None,
) -> str:
    """Make `image` a version of our model; its name, such as ``projects/…/models/melodify-musician@2``.

    `artifacts` is a gs:// folder that the container finds as ``AIP_STORAGE_URI``. The same image, artifacts and
    environment are the same version, however often they are registered: it gets the `aliases` and expires later; one
    that is just being registered is waited for. Raises `CloudError`.
    """
    from google.cloud.aiplatform_v1 import ModelServiceClient
    from google.cloud.aiplatform_v1.types import UploadModelResponse

    client = clients.vertex(settings, ModelServiceClient)
    request = sha256(json.dumps([image, artifacts, sorted((environment or {}).items())]).encode())[:32]
    name = f"{clients.parent(settings)}/models/{settings.serving_name}"
    _wait_for_others(settings, client, name, UploadModelResponse, on_event)
    versions = clients.find_google(settings, lambda: list(client.list_model_versions(name=name, retry=None)))
    for version in versions or ():
        if version.labels.get(labels.REQUEST) == request:
            version.name = f"{name}@{version.version_id}"
            on_event(f"registered before: {version.name}")
            _renew(settings, client.update_model, "model", version)
            for one in aliases:
                alias(settings, version.name, one)
            return str(version.name)
    model = {
        "display_name": settings.serving_name,
        "labels": labels.labels(settings, request),
        "version_aliases": list(aliases),
        "artifact_uri": artifacts,
        "container_spec": {
            "image_uri": image,
            "ports": [{"container_port": PORT}],
            "predict_route": PREDICT_ROUTE,
            "health_route": HEALTH_ROUTE,
            "env": [{"name": key, "value": value} for key, value in (environment or {}).items()],
        },
    }
    of_which = {"model_id": settings.serving_name} if versions is None else {"parent_model": name}
    upload = {"parent": clients.parent(settings), "model": model, **of_which}
    operation = _order(settings, lambda: client.upload_model(request=upload, retry=None), f"registering {image}")
    made = wait_for(settings, operation, f"registering {image}")
    version_name = f"{_own(settings, made.model, 'models')}@{made.model_version_id}"
    on_event(f"registered: {version_name}")
    return version_name


def container_environment(settings: Settings, musician: str) -> dict[str, str]:
    """What the image needs to know to play into the settings' store. No secret: it acts as its service account."""
    fields = {
        "musician": musician,
        "store": settings.store,
        "project": settings.project,
        "location": settings.location,
        "deadline": f"{settings.deadline:g}",
        "allow_paid": "true",  # of Cloud Storage
    }
    return {f"MELODIFY_{name.upper()}": value for name, value in fields.items()}


def alias(settings: Settings, model: str, name: str) -> None:
    """Let the alias `name` mean the version `model`, and no other."""
    from google.cloud.aiplatform_v1 import ModelServiceClient

    client = clients.vertex(settings, ModelServiceClient)
    clients.ask_google(settings, lambda: client.merge_version_aliases(name=model, version_aliases=[name], retry=None))


def deploy(
    settings: Settings,
    model: str,
    *,
    machine_type: str = "n2-standard-4",
    accelerator_type: str = "",
    accelerators: int = 1,
    replicas: tuple[int, int] = (1, 1),
    traffic: int = 100,
    on_event: OnEvent = lambda text: None,
) -> tuple[str, str]:
    """Serve `model` from our endpoint, which is made if it is not there; names of endpoint and deployment.

    It gets `traffic` percent, or all where nobody has any; what the others had is scaled down to the rest: 10 is a
    canary, 100 all of it. A model that is deployed already, or is just being deployed, is not deployed again; it and
    the endpoint expire later. `replicas` are at least and at most. Raises `InputError` and `CloudError`.
    """
    from google.cloud.aiplatform_v1 import EndpointServiceClient, ModelServiceClient
    from google.cloud.aiplatform_v1.types import DeployModelResponse

    if not 0 <= traffic <= 100:
        raise InputError(f"{traffic} percent of the traffic cannot be given; it must be between 0 and 100")
    registered = find_model(settings, model)
    if registered is None:
        raise CloudError(f"there is no {model} (404); register it, or see `melodify cloud list`", status=404)
    _renew(settings, clients.vertex(settings, ModelServiceClient).update_model, "model", registered)
    client = clients.vertex(settings, EndpointServiceClient)
    endpoint = _endpoint(settings, client, on_event)
    _wait_for_others(settings, client, endpoint, DeployModelResponse, on_event)
    there = get(settings, endpoint)
    _renew(settings, client.update_endpoint, "endpoint", there)
    for one in there.deployed_models:
        if f"{tuned.own(one.model, 'models', settings)}@{one.model_version_id}" == registered.name:
            on_event(f"deployed before: {one.id}")
            return endpoint, str(one.id)
    machine: dict[str, Any] = {"machine_type": machine_type}
    if accelerator_type:
        machine |= {"accelerator_type": accelerator_type, "accelerator_count": accelerators}
    deployed: Any = {
        # Of two who order the same at once, the service refuses one.
        "id": _number(registered.name.removeprefix(f"{clients.parent(settings)}/")),
        "model": registered.name,
        "display_name": settings.serving_name,
        "service_account": settings.service_account,
        "dedicated_resources": {
            "machine_spec": machine,
            "min_replica_count": replicas[0],
            "max_replica_count": replicas[1],
        },
    }
    share = traffic if _without_zeros(there.traffic_split) else 100
    split = {"0": share, **_scaled(dict(there.traffic_split.items()), 100 - share)}
    on_event(f"deploying {model} on {machine_type}")
    operation = _order(
        settings,
        lambda: client.deploy_model(
            endpoint=endpoint, deployed_model=deployed, traffic_split=_without_zeros(split), retry=None
        ),
        f"deploying {model}",
    )
    made = wait_for(settings, operation, f"deploying {model}")
    on_event(f"deployed: {made.deployed_model.id} in {endpoint}")
    return endpoint, str(made.deployed_model.id)


def split(settings: Settings, endpoint: str, shares: Mapping[str, int]) -> None:
    """Give each deployment its percent of the traffic; together 100. This is how a canary grows, or is rolled back."""
    from google.cloud.aiplatform_v1 import EndpointServiceClient

    if sum(shares.values()) != 100 or min(shares.values()) < 0:
        raise InputError(f"the shares must be 100 percent together; got {dict(shares)}")
    client = clients.vertex(settings, EndpointServiceClient)
    update = {"endpoint": {"name": endpoint, "traffic_split": _without_zeros(shares)}}
    mask = {"update_mask": {"paths": ["traffic_split"]}}
    clients.ask_google(settings, lambda: client.update_endpoint(request=update | mask, retry=None))


def undeploy(settings: Settings, endpoint: str, deployed: str) -> None:
    """Take a deployment off its endpoint; the others share its traffic. One that is not there is passed over.

    Raises `InputError` where it has all the traffic and there are others: say first, with `split`, who gets it.
    """
    from google.cloud.aiplatform_v1 import EndpointServiceClient

    there = find_endpoint(settings, endpoint)
    if there is None or deployed not in {one.id for one in there.deployed_models}:
        return
    rest = {key: value for key, value in there.traffic_split.items() if key != deployed}
    if there.traffic_split.get(deployed) and not any(rest.values()) and len(there.deployed_models) > 1:
        raise InputError(f"{deployed} has all the traffic of {endpoint}; give it to others first (`split`)")
    client = clients.vertex(settings, EndpointServiceClient)
    operation = clients.ask_google(
        settings,
        lambda: client.undeploy_model(
            endpoint=endpoint, deployed_model_id=deployed, traffic_split=_without_zeros(_scaled(rest, 100)), retry=None
        ),
    )
    wait_for(settings, operation, f"undeploying {deployed}")


def serve_only(settings: Settings, endpoint: str, deployed: str, *, on_event: OnEvent = lambda text: None) -> None:
    """Take all other deployments away, so that `deployed` has all the traffic; every one, where it is empty.

    Raises `InputError` where it is not there, and changes nothing.
    """
    there = get(settings, endpoint)
    shares = dict(there.traffic_split.items())
    others = [one.id for one in there.deployed_models if one.id != deployed]
    if deployed and len(others) == len(there.deployed_models):
        raise InputError(f"{deployed} is not deployed in {endpoint}; nothing was changed")
    if deployed and others and not shares.get(deployed):
        split(settings, endpoint, {deployed: 100})
    for one in sorted(others, key=lambda one: shares.get(one, 0)):  # the busiest last
        undeploy(settings, endpoint, one)
        on_event(f"undeployed: {one}")


def wait_until_unchanged(settings: Settings, endpoint: str, *, on_event: OnEvent = lambda text: None) -> None:
    """Wait for the deployments that are under way, whoever ordered them."""
    from google.cloud.aiplatform_v1 import EndpointServiceClient
    from google.cloud.aiplatform_v1.types import DeployModelResponse

    _wait_for_others(settings, clients.vertex(settings, EndpointServiceClient), endpoint, DeployModelResponse, on_event)


def busiest(endpoint: Endpoint) -> str:
    """The deployment with the most traffic; empty where nobody has any."""
    shares = _without_zeros(dict(endpoint.traffic_split.items()))
    return max(sorted(shares), key=lambda one: shares[one], default="")


def delete_endpoint(settings: Settings, endpoint: str, *, on_event: OnEvent = lambda text: None) -> bool:
    """Delete an endpoint that carries our labels, with what it serves; False when it was not there.

    What is under way there is waited for. Raises `InputError` for one that is not ours, and deletes nothing.
    """
    from google.cloud.aiplatform_v1 import EndpointServiceClient
    from google.cloud.aiplatform_v1.types import DeployModelResponse

    there = find_endpoint(settings, endpoint)
    if there is None:
        return False
    _require_ours(there)
    client = clients.vertex(settings, EndpointServiceClient)
    _wait_for_others(settings, client, there.name, DeployModelResponse, on_event)
    there = get(settings, endpoint)
    for one in sorted(there.deployed_models, key=lambda one: there.traffic_split.get(one.id, 0)):  # the busiest last
        undeploy(settings, endpoint, one.id)
    return _delete_endpoint(settings, there.name)


def delete_model(settings: Settings, model: str) -> bool:
    """Delete a model that carries our labels, with all its versions; False when it was not there.

    Raises `InputError` for one that is not ours, and deletes nothing.
    """
    there = find_model(settings, model.partition("@")[0])
    if there is None:
        return False
    _require_ours(there)
    return _delete_model(settings, model)


def withdraw(settings: Settings, endpoint: str, model: str) -> list[str]:
    """Take `model` off `endpoint` and delete both, but not an endpoint that serves others too; names of what went.

    What is gone already is passed over. No labels are asked for: it is for a caller who knows whose both are, such as
    from the job that made them.
    """
    there = find_endpoint(settings, endpoint)
    for one in there.deployed_models if there is not None else ():
        if tuned.own(one.model, "models", settings) == tuned.own(model, "models", settings):
            undeploy(settings, endpoint, one.id)
    deleted = []
    there = find_endpoint(settings, endpoint)
    if there is not None and not there.deployed_models and _delete_endpoint(settings, endpoint):
        deleted.append(endpoint)
    if _delete_model(settings, model):
        deleted.append(model)
    return deleted


def get(settings: Settings, endpoint: str) -> Endpoint:
    """The endpoint, with what it serves.

    Raises `InputError` for a name that is not of the settings' project and place, and `CloudError`, of status 404
    where there is none.
    """
    found = find_endpoint(settings, endpoint)
    if found is None:
        raise CloudError(f"there is no {endpoint} (404); deploy one, or see `melodify cloud list`", status=404)
    return found


def find_endpoint(settings: Settings, endpoint: str) -> Endpoint | None:
    """As `get`; None where there is none. Its name is under the settings' own project, as the service's is not."""
    from google.cloud.aiplatform_v1 import EndpointServiceClient

    client = clients.vertex(settings, EndpointServiceClient)
    return clients.find_google(settings, lambda: _get(settings, client.get_endpoint, endpoint))


def find_model(settings: Settings, model: str) -> Model | None:
    """The version `model`, or its default one, as Model Registry has it; None where there is none. Raises as `get`.

    It is named by its number: ``projects/…/models/melodify-musician@2``.
    """
    from google.cloud.aiplatform_v1 import ModelServiceClient

    client = clients.vertex(settings, ModelServiceClient)
    found = clients.find_google(settings, lambda: _get(settings, client.get_model, model))
    if found is not None and found.version_id:
        found.name = f"{found.name}@{found.version_id}"
    return found


def predict(settings: Settings, endpoint: Endpoint, instances: Sequence[Mapping[str, Any]]) -> Answer:
    """As many predictions as `instances`. What is asked of the musician may be asked again, and is made once."""
    from google.cloud.aiplatform_v1 import PredictionServiceClient
    from google.protobuf import json_format

    if (size := len(json.dumps(instances))) > REQUEST_MAX_BYTES:
        raise InputError(
            f"{size:,} bytes are more than an endpoint takes ({REQUEST_MAX_BYTES:,}); ask for less at once"
        )
    own = endpoint.dedicated_endpoint_dns if endpoint.dedicated_endpoint_enabled else ""
    if own and not _DEDICATED.fullmatch(own):  # the token is sent there
        raise CloudError(f"{own!r} is no address of a dedicated endpoint of Vertex AI; look at {endpoint.name}")
    client = clients.vertex(settings, PredictionServiceClient, address=settings.vertex_base_url or own)
    seconds = settings.deadline if own else SHARED_S
    metadata = [("traceparent", trace)] if (trace := traceparent()) else []
    answer = clients.ask_google(
        settings,
        lambda: client.predict(
            endpoint=endpoint.name, instances=list(instances), timeout=seconds, retry=None, metadata=metadata
        ),
        service="the endpoint",
        timeout=seconds,
        deadline=settings.deadline,
    )
    with clients.readable("the endpoint"):
        predictions: list[Any] = json_format.MessageToDict(answer._pb).get("predictions", [])
    if len(predictions) != len(instances):
        raise CloudError(f"the endpoint gave {len(predictions)} predictions for {len(instances)} instances")
    return Answer(predictions, str(answer.deployed_model_id))


def own_endpoint(settings: Settings) -> str:
    """Full name of the endpoint in the settings. Raises `SettingsError` where there is none, or another project's."""
    said = settings.endpoint
    name = tuned.own(said if "/" in said else f"{clients.parent(settings)}/endpoints/{said}", "endpoints", settings)
    if not said or name is None:
        raise SettingsError(
            f"{said!r} is no endpoint of project {settings.project!r} in {settings.location}: set MELODIFY_ENDPOINT "
            "to what `melodify cloud list` shows"
        )
    return name


def wait_for(settings: Settings, operation: Operation, what: str) -> Any:
    """What a long-running operation gives. Raises `CloudError` with what it says when it fails, or takes an hour."""
    from google.api_core.retry import Retry

    once = Retry(predicate=lambda error: False)  # None would be the client's own retries

    def is_done() -> bool:
        done = operation.done(retry=once)
        if not operation.operation.name:
            raise ValueError("no operation")
        return bool(done)

    if not operation.operation.name:
        raise CloudError(f"{what}: the answer of Vertex AI names no operation; try again later")
    until, pause = time.monotonic() + OPERATION_S, POLL_S
    while not clients.ask_google(settings, is_done):
        if time.monotonic() > until:
            raise CloudError(f"{what} takes more than {OPERATION_S:g} s; look at it in the console")
        time.sleep(pause)
        pause = min(1.5 * pause, POLL_MAX_S)
    if (error := operation.exception(timeout=0)) is not None:
        said = redact(" ".join(str(getattr(error, "message", error)).split()), settings)[:300]
        raise CloudError(f"{what} failed: {said}", status=200)
    return operation.result(timeout=0)


def _endpoint(settings: Settings, client: Any, on_event: OnEvent) -> str:
    """Name of the endpoint, made if it is not there."""
    name = f"{clients.parent(settings)}/endpoints/{settings.serving_name}"
    if find_endpoint(settings, name) is not None:
        return name
    new = {
        "display_name": settings.serving_name,
        "labels": labels.labels(settings, settings.serving_name),
        # A shared address gives up after a minute, before a long song is made.
        "dedicated_endpoint_enabled": True,
        "client_connection_config": {"inference_timeout": timedelta(seconds=settings.deadline)},
    }
    try:
        operation = clients.ask_google(
            settings,
            lambda: client.create_endpoint(
                parent=clients.parent(settings), endpoint=new, endpoint_id=settings.serving_name, retry=None
            ),
            is_repeatable=False,
        )
    except CloudError as error:
        if error.status != _CONFLICT:
            raise
    else:
        wait_for(settings, operation, "creating the endpoint")
        on_event(f"created: {name}")
    return name


def _wait_for_others(settings: Settings, client: Any, name: str, response: Any, on_event: OnEvent) -> None:
    """Until nobody changes the endpoint or model `name` any more: what a client that is gone ordered may be under way.

    `response` is the type of what such an order gives. Where it failed, that is said, and is no failure of ours.
    """
    from google.api_core import operation as operations

    running = clients.find_google(settings, lambda: client.list_operations({"name": name}))
    for one in running.operations if running is not None else ():
        if not one.done:
            on_event(f"waiting for {one.name}")
            try:
                wait_for(settings, operations.from_gapic(one, client.transport.operations_client, response), one.name)
            except CloudError as error:
                on_event(str(error))


def _order(settings: Settings, request: Callable[[], Operation], what: str) -> Operation:
    """What `request` sets going, sent once. Raises `CloudError`, which says so where another was faster."""
    try:
        return clients.ask_google(settings, request, is_repeatable=False)
    except CloudError as error:
        if error.status != _CONFLICT:
            raise
        raise CloudError(f"{what}: another does the same at this moment; try again in a minute", status=409) from None


def _get(settings: Settings, request: Callable[..., T], name: str) -> T:
    """What `request` finds under `name`. An answer that is about something else is none."""
    kind = name.split("/")[-2] if "/" in name else ""
    wanted = tuned.own(name, kind, settings)
    if wanted is None:
        raise InputError(f"{name!r} is not of project {settings.project!r} in {settings.location}")
    _, at, version = name.partition("@")
    found: Any = request(name=f"{wanted}{at}{version}", retry=None)
    if tuned.own(found.name, kind, settings) != wanted:
        raise CloudError(f"the answer of Vertex AI cannot be read: {wanted} was asked for, not {found.name!r}")
    found.name = wanted
    return cast(T, found)


def _own(settings: Settings, name: str, kind: str) -> str:
    """`name`, as the service says it, under the settings' own project, so that names can be compared."""
    own = tuned.own(name, kind, settings)
    if own is None:
        raise CloudError(f"the answer of Vertex AI cannot be read: {name!r} is none of {settings.project!r}'s {kind}")
    return own


def _renew(settings: Settings, update: Callable[..., Any], kind: str, there: Endpoint | Model) -> None:
    """Let what is ours and is used again expire as late as what is new."""
    until = labels.expires(settings)
    if labels.RUN in there.labels and there.labels.get(labels.EXPIRES, "") < until:
        renewed = {"name": there.name, "labels": {**there.labels, labels.EXPIRES: until}}
        request = {kind: renewed, "update_mask": {"paths": ["labels"]}}
        clients.ask_google(settings, lambda: update(request=request, retry=None))


def _require_ours(there: Endpoint | Model) -> None:
    if labels.RUN not in there.labels:
        raise InputError(
            f"{there.name} ({there.display_name!r}) has no label {labels.RUN}, so Melodify did not make it: not deleted"
        )


def _delete_endpoint(settings: Settings, endpoint: str) -> bool:
    from google.cloud.aiplatform_v1 import EndpointServiceClient

    client = clients.vertex(settings, EndpointServiceClient)
    return _delete(settings, lambda: client.delete_endpoint(name=endpoint, retry=None), endpoint)


def _delete_model(settings: Settings, model: str) -> bool:
    from google.cloud.aiplatform_v1 import ModelServiceClient

    client = clients.vertex(settings, ModelServiceClient)
    return _delete(settings, lambda: client.delete_model(name=model.partition("@")[0], retry=None), model)


def _delete(settings: Settings, request: Callable[[], Operation], name: str) -> bool:
    operation = clients.find_google(settings, request)
    if operation is None:
        return False
    wait_for(settings, operation, f"deleting {name}")
    return True


def _number(version: str) -> str:
    """An id of a deployment that follows from its ``models/…@…``: at most ten digits, as Vertex AI wants it."""
    return str(10**9 + int(sha256(version.encode())[:12], 16) % 10**9)


def _scaled(shares: Mapping[str, int], total: int) -> dict[str, int]:
    """`shares` in the same proportion, together `total`; nothing where there is nothing to share."""
    before = sum(shares.values())
    if not before:
        return {}
    scaled = {key: value * total // before for key, value in shares.items()}
    scaled[max(scaled, key=lambda key: shares[key])] += total - sum(scaled.values())
    return scaled


def _without_zeros(shares: Mapping[str, int]) -> dict[str, int]:
    return {key: value for key, value in shares.items() if value}
