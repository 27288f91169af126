"""Vertex AI's Model Registry and online prediction: models with versions, endpoints that serve them, operations.

What is deployed is started for real: the command that the image runs, with the variables that Vertex AI sets and the
container's own. What is asked of the endpoint reaches it.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import requests
from google.cloud.aiplatform_v1.types import (
    CreateEndpointRequest,
    DeployModelRequest,
    Endpoint,
    PredictRequest,
    UndeployModelRequest,
    UploadModelRequest,
)
from google.protobuf import json_format

from emulators.server import Refused, Reply, Request, route
from melodify_lib.settings import Settings
from serving.process import Running, running

PARENT = r"/v1/(?P<parent>projects/[^/]+/locations/[^/]+)"
ID = r"[a-z0-9][a-z0-9_-]*"
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


class RegistryRoutes:
    """For an emulator of Vertex AI. `machine` is the environment of what it starts: credentials and addresses."""

    models: dict[str, dict[str, Any]]
    endpoints: dict[str, dict[str, Any]]
    machine: dict[str, str]
    authorise: Callable[[Request], None]
    next_id: Callable[[], str]
    hold: threading.Event

    def __init__(self) -> None:
        self.versions: dict[str, list[dict[str, Any]]] = {}
        self.servers: dict[str, Running] = {}
        self._stacks: dict[str, ExitStack] = {}
        self._operations: dict[str, dict[str, Any]] = {}
        super().__init__()

    def __exit__(self, *error: object) -> None:
        for stack in self._stacks.values():
            stack.close()
        super().__exit__(*error)  # type: ignore[misc]

    @route("POST", PARENT + r"/models:upload")
    def upload_model(self, request: Request, parent: str) -> Any:
        self.authorise(request)
        body = parse(UploadModelRequest, {"parent": parent, **request.body})
        model = body["model"]
        check_labels(model.get("labels", {}))
        if not model.get("containerSpec", {}).get("imageUri"):
            raise Refused(400, "container_spec.image_uri is required")
        if "parentModel" in body:
            name = body["parentModel"]
            self._model(name)
        else:
            name = f"{parent}/models/{body.get('modelId') or self.next_id()}"
            if name in self.models or self._running(name):
                raise Refused(409, f"{name} already exists")

        def upload() -> dict[str, Any]:
            self.hold.wait(60)
            versions = self.versions.setdefault(name, [])
            number = str(len(versions) + 1)
            aliases = [*model.get("versionAliases", []), *([] if versions else ["default"])]
            made = {**model, "name": name, "versionId": number, "versionAliases": [], "createTime": now()}
            versions.append(made)
            self._move_aliases(name, made, aliases)
            self.models[name] = made
            return {"model": name, "modelVersionId": number}

        return self.operation(parent, "UploadModelResponse", upload, of=name)

    @route("GET", PARENT + rf"/models/(?P<which>{ID}(?:@[a-z0-9-]+)?)")
    def get_model(self, request: Request, parent: str, which: str) -> Any:
        self.authorise(request)
        return self._model(f"{parent}/models/{which}")

    @route("GET", PARENT + r"/models")
    def list_models(self, request: Request, parent: str) -> Any:
        self.authorise(request)
        return {"models": list(self.models.values())}

    @route("GET", PARENT + rf"/models/(?P<number>{ID}):listVersions")
    def list_versions(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        self._model(f"{parent}/models/{number}")
        return {"models": self.versions.get(f"{parent}/models/{number}", [])}

    @route("POST", PARENT + rf"/models/(?P<which>{ID}@[a-z0-9-]+):mergeVersionAliases")
    def merge_version_aliases(self, request: Request, parent: str, which: str) -> Any:
        self.authorise(request)
        model = self._model(f"{parent}/models/{which}")
        self._move_aliases(model["name"], model, request.body["versionAliases"])
        return model

    @route("DELETE", PARENT + rf"/models/(?P<number>{ID})")
    def delete_model(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        name = self._model(f"{parent}/models/{number}")["name"]
        if any(name == bare(one["model"]) for endpoint in self.endpoints.values() for one in deployed(endpoint)):
            raise Refused(400, "the model is deployed")
        del self.models[name]
        self.versions.pop(name, None)
        return self.operation(parent, "DeleteOperationMetadata")

    @route("POST", PARENT + r"/endpoints")
    def create_endpoint(self, request: Request, parent: str) -> Any:
        self.authorise(request)
        endpoint = parse(Endpoint, request.body)
        given = request.query.get("endpointId", [""])[0]
        parse(CreateEndpointRequest, {"parent": parent, "endpoint": request.body, "endpointId": given})
        check_labels(endpoint.get("labels", {}))
        name = f"{parent}/endpoints/{given or self.next_id()}"
        if name in self.endpoints:
            raise Refused(409, f"{name} already exists")
        self.endpoints[name] = {**endpoint, "name": name, "deployedModels": [], "createTime": now()}
        return self.operation(parent, "Endpoint", lambda: {"name": name})

    @route("GET", PARENT + r"/endpoints")
    def list_endpoints(self, request: Request, parent: str) -> Any:
        self.authorise(request)
        return {"endpoints": list(self.endpoints.values())}

    @route("GET", PARENT + rf"/endpoints/(?P<number>{ID})")
    def get_endpoint(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        return self._endpoint(f"{parent}/endpoints/{number}")

    @route("PATCH", PARENT + rf"/endpoints/(?P<number>{ID})")
    def update_endpoint(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        endpoint = self._endpoint(f"{parent}/endpoints/{number}")
        if request.query.get("updateMask") != ["trafficSplit"]:
            raise Refused(400, f"only trafficSplit can be changed here, not {request.query.get('updateMask')}")
        split = parse(Endpoint, request.body).get("trafficSplit", {})
        self._check_split(split, {one["id"] for one in deployed(endpoint)})
        endpoint["trafficSplit"] = split
        return endpoint

    @route("POST", PARENT + rf"/endpoints/(?P<number>{ID}):deployModel")
    def deploy_model(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        endpoint = self._endpoint(f"{parent}/endpoints/{number}")
        body = parse(DeployModelRequest, {"endpoint": endpoint["name"], **request.body})
        wanted = body["deployedModel"]
        model = self._model(wanted["model"])
        if not wanted.get("dedicatedResources", {}).get("machineSpec", {}).get("machineType"):
            raise Refused(400, "dedicated_resources.machine_spec.machine_type is required")
        there = {one["id"] for one in deployed(endpoint)}
        self._check_split(body.get("trafficSplit", {}), {"0", *there})
        if wanted.get("id") in there:
            raise Refused(409, f"deployed model {wanted['id']} already exists")
        made = {
            **wanted,
            "id": wanted.get("id") or self.next_id(),
            "model": model["name"],
            "modelVersionId": model.get("versionId", "1"),
        }

        def start() -> dict[str, Any]:
            self._start(made["id"], model)
            split = body.get("trafficSplit", {})
            endpoint["trafficSplit"] = {made["id"] if key == "0" else key: value for key, value in split.items()}
            endpoint["deployedModels"] = [*deployed(endpoint), made]
            return {"deployedModel": made}

        return self.operation(parent, "DeployModelResponse", start, of=endpoint["name"])

    @route("POST", PARENT + rf"/endpoints/(?P<number>{ID}):undeployModel")
    def undeploy_model(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        endpoint = self._endpoint(f"{parent}/endpoints/{number}")
        body = parse(UndeployModelRequest, {"endpoint": endpoint["name"], **request.body})
        left = [one for one in deployed(endpoint) if one["id"] != body["deployedModelId"]]
        if len(left) == len(deployed(endpoint)):
            raise Refused(404, "no such deployed model")
        split = body.get("trafficSplit", {})
        self._check_split(split, {one["id"] for one in left})
        endpoint["deployedModels"], endpoint["trafficSplit"] = left, split
        if (stack := self._stacks.pop(body["deployedModelId"], None)) is not None:
            stack.close()
            del self.servers[body["deployedModelId"]]
        return self.operation(parent, "UndeployModelResponse")

    @route("DELETE", PARENT + rf"/endpoints/(?P<number>{ID})")
    def delete_endpoint(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        if deployed(self._endpoint(f"{parent}/endpoints/{number}")):
            raise Refused(400, "the endpoint has deployed models")
        del self.endpoints[f"{parent}/endpoints/{number}"]
        return self.operation(parent, "DeleteOperationMetadata")

    @route("POST", PARENT + rf"/endpoints/(?P<number>{ID}):predict")
    def predict(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        endpoint = self._endpoint(f"{parent}/endpoints/{number}")
        parse(PredictRequest, {"endpoint": endpoint["name"], **request.body})
        split = endpoint.get("trafficSplit", {})
        if not split:
            raise Refused(400, f"{endpoint['name']} does not have traffic split or deployed models")
        chosen = random.choices(list(split), list(split.values()))[0]
        body = {key: value for key, value in request.body.items() if key in ("instances", "parameters")}
        trace = {key: value for key, value in request.headers.items() if key == "traceparent"}
        answer = requests.post(
            f"http://127.0.0.1:{self.servers[chosen].port}/predict", json=body, headers=trace, timeout=600
        )
        if not answer.ok:
            headers = {key: value for key, value in answer.headers.items() if key == "Retry-After"}
            return Reply(self.error(answer.status_code, answer.text), answer.status_code, headers)  # type: ignore[attr-defined]
        model = next(one for one in deployed(endpoint) if one["id"] == chosen)
        return {
            **answer.json(),
            "deployedModelId": chosen,
            "model": model["model"],
            "modelVersionId": model["modelVersionId"],
        }

    @route("GET", rf"/(?:v1|ui)/(?P<name>projects/[^/]+/locations/[^/]+(?:/(?:endpoints|models)/{ID})?/operations/\d+)")
    def get_operation(self, request: Request, name: str) -> Any:
        """Done, at the earliest, when it is looked at for the second time."""
        self.authorise(request)
        if name not in self._operations:
            raise Refused(404, f"{name} is not found")
        return self._look(name)

    @route("GET", rf"/(?:v1|ui)/(?P<of>projects/[^/]+/locations/[^/]+/(?:endpoints|models)/{ID})/operations")
    def list_operations(self, request: Request, of: str) -> Any:
        self.authorise(request)
        found = [name for name in self._operations if name.startswith(f"{of}/operations/")]
        if not found and of not in self.endpoints and of not in self.models:
            raise Refused(404, f"{of} is not found.")
        return {"operations": [self._look(name) for name in found]}

    def operation(
        self, parent: str, kind: str, work: Callable[[], dict[str, Any]] = dict, of: str = ""
    ) -> dict[str, Any]:
        """Begin `work` on the resource `of`, which gives the fields of a response of the kind."""
        one: dict[str, Any] = {"looks": 0, "name": f"{of or parent}/operations/{self.next_id()}", "done": {}}
        self._operations[one["name"]] = one

        def run() -> None:
            try:
                typed = {"@type": f"type.googleapis.com/google.cloud.aiplatform.v1.{kind}"}
                one["done"] = {"response": (typed | work()) if kind != "DeleteOperationMetadata" else _EMPTY}
            except Exception as error:
                one["done"] = {"error": {"code": 9, "message": _critical(str(error))}}

        one["thread"] = threading.Thread(target=run, daemon=True)
        one["thread"].start()
        return {"name": one["name"], "done": False}

    def _running(self, of: str) -> bool:
        return any(name.startswith(f"{of}/") and not one["done"] for name, one in self._operations.items())

    def _look(self, name: str) -> dict[str, Any]:
        one = self._operations[name]
        one["looks"] += 1
        if one["looks"] < 2 or not one["done"]:
            return {"name": one["name"], "done": False}
        return {"name": one["name"], "done": True, **one["done"]}

    def _start(self, number: str, model: dict[str, Any]) -> None:
        container = {one["name"]: one["value"] for one in model["containerSpec"].get("env", [])}
        fields = {key.removeprefix("MELODIFY_").lower(): value for key, value in (self.machine | container).items()}
        stack = ExitStack()
        server = running(Settings.load(**fields), {"AIP_STORAGE_URI": model.get("artifactUri", "")})
        self.servers[number] = stack.enter_context(server)
        self._stacks[number] = stack

    def _move_aliases(self, name: str, model: dict[str, Any], aliases: list[str]) -> None:
        for other in self.versions[name]:
            other["versionAliases"] = [one for one in other["versionAliases"] if one not in aliases]
        model["versionAliases"] = sorted({*model["versionAliases"], *aliases})

    def _model(self, name: str) -> dict[str, Any]:
        plain, _, which = name.partition("@")
        for one in self.versions.get(plain, []):
            if which in (one["versionId"], *one["versionAliases"]) or (
                not which and "default" in one["versionAliases"]
            ):
                return one
        if plain not in self.models or plain in self.versions:
            raise Refused(404, f"{name} is not found.")
        return self.models[plain]  # a tuned one

    def _endpoint(self, name: str) -> dict[str, Any]:
        if name not in self.endpoints:
            raise Refused(404, f"{name} is not found.")
        return self.endpoints[name]

    def _check_split(self, split: dict[str, int], known: set[str]) -> None:
        if split and (sum(split.values()) != 100 or not set(split) <= known):
            raise Refused(400, f"the traffic split {split} must be 100 together, over {sorted(known)}")


_EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}


def _critical(said: str) -> str:
    """What a server said last of importance."""
    return next((line for line in said.splitlines() if '"CRITICAL"' in line), said[-250:])


def parse(kind: Any, body: dict[str, Any]) -> dict[str, Any]:
    """`body` as the service's own message has it, which knows no other fields."""
    try:
        return json_format.MessageToDict(json_format.ParseDict(body, kind.pb(kind())))
    except json_format.ParseError as error:
        raise Refused(400, f"Invalid {kind.__name__}: {error}") from None


def check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        if not _LABEL.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise Refused(400, f"Invalid label {key!r}: {value!r}")


def deployed(endpoint: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = endpoint.get("deployedModels", [])
    return found


def bare(name: str) -> str:
    return name.partition("@")[0]


def now() -> str:
    return datetime.now(UTC).isoformat()
