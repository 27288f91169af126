"""Vertex AI as far as Melodify uses it: Gemini's generateContent, tuning jobs, tuned models and their endpoints.

A tuning job really trains: it reads its file from Cloud Storage, tunes the local describer on it, and
the endpoint answers with that. So what is served depends on what was sent.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.api_core.exceptions import NotFound
from google.genai import types
from pydantic import BaseModel, ValidationError

from emulators import gcs
from emulators.lyria import LyriaRoutes
from emulators.pipelines import PipelineRoutes
from emulators.registry import PARENT, RegistryRoutes, check_labels
from emulators.server import Emulator, Refused, Request, route
from melodify_lib.dataset import read
from melodify_lib.describe.heads import load
from melodify_lib.describe.local import LocalDescriber
from melodify_lib.errors import MelodifyError
from melodify_lib.nouns import Caption
from melodify_lib.tuning.local import tune

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
}
_CONTENT_FIELDS = {
    "contents", "systemInstruction", "generationConfig", "safetySettings", "tools", "toolConfig", "labels",
    "cachedContent", "modelArmorConfig",
}  # fmt: skip


class VertexEmulator(LyriaRoutes, PipelineRoutes, RegistryRoutes, Emulator):
    """`respond` is the untuned model: the user's text → answer, a JSON value or, for what is not JSON, a text.

    Jobs wait before they train, and uploads before they are versions, while `hold` is cleared.
    """

    def __init__(self, respond: Callable[[str], Any], token: str, gcs_url: str = "") -> None:
        self.respond = respond
        self.token = token
        self.gcs_url = gcs_url
        self.hold = threading.Event()
        self.hold.set()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self._describers: dict[str, LocalDescriber] = {}
        self.machine: dict[str, str] = {}
        self._ids = itertools.count(1001)
        super().__init__()

    def next_id(self) -> str:
        return str(next(self._ids))

    def error(self, status: int, message: str) -> Any:
        return {"error": {"code": status, "message": message, "status": _CODES.get(status, "INTERNAL")}}

    @route("POST", PARENT + r"/(?P<model>publishers/google/models/[^/:]+):generateContent")
    def generate_content(self, request: Request, parent: str, model: str) -> Any:
        self.authorise(request)
        question, config = read_question(request.body)
        return content(self.respond(question), model, question, config.max_output_tokens)

    @route("GET", r"/v1/publishers/google/models/(?P<model>(?:gemini|lyria)-[^/:]+)")
    def get_publisher_model(self, request: Request, model: str) -> Any:
        self.authorise(request)
        return {"name": f"publishers/google/models/{model}"}

    @route("POST", PARENT + r"/endpoints/(?P<number>\d+):generateContent")
    def generate_tuned(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        endpoint = self._one(self.endpoints, f"{parent}/endpoints/{number}")
        if not endpoint["deployedModels"]:
            raise Refused(400, "the endpoint has no model")
        question, config = read_question(request.body)
        genres = config.response_schema.properties["genre"].enum
        describer = self._describers[endpoint["deployedModels"][0]["model"]]
        music = describer.describe(Caption.from_text(question), genres[0] if len(genres) == 1 else None)
        answer = {**json.loads(music.to_json()), "alternatives": []}
        assert set(config.response_schema.required) <= set(answer) <= set(config.response_schema.properties)
        return content(answer, endpoint["name"], question, config.max_output_tokens)

    @route("POST", PARENT + r"/tuningJobs")
    def create_job(self, request: Request, parent: str) -> Any:
        self.authorise(request)
        asked = known(types.TuningJob, request.body)
        if asked.base_model is None or asked.supervised_tuning_spec is None:
            raise Refused(400, "baseModel and supervisedTuningSpec are required")
        check_labels(asked.labels)
        job = {
            **request.body,
            "name": f"{parent}/tuningJobs/{self.next_id()}",
            "state": "JOB_STATE_PENDING",
            "createTime": datetime.now(UTC).isoformat(),
        }
        self.jobs[job["name"]] = job
        threading.Thread(target=self._run, args=(job, parent), daemon=True).start()
        return dict(job)

    @route("GET", PARENT + r"/tuningJobs")
    def list_jobs(self, request: Request, parent: str) -> Any:
        """Newest first, in pages of two."""
        self.authorise(request)
        start = int(request.query.get("pageToken", ["0"])[0])
        jobs = list(reversed(self.jobs.values()))
        more = {"nextPageToken": str(start + 2)} if len(jobs) > start + 2 else {}
        return {"tuningJobs": jobs[start : start + 2], **more}

    @route("GET", PARENT + r"/tuningJobs/(?P<number>\d+)")
    def get_job(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        return dict(self._one(self.jobs, f"{parent}/tuningJobs/{number}"))

    @route("POST", PARENT + r"/tuningJobs/(?P<number>\d+):cancel")
    def cancel_job(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        job = self._one(self.jobs, f"{parent}/tuningJobs/{number}")
        if job["state"] not in ("JOB_STATE_PENDING", "JOB_STATE_RUNNING"):
            raise Refused(400, f"the job is {job['state']}")
        job["state"] = "JOB_STATE_CANCELLED"
        job["error"] = {"code": 1, "message": "The job was cancelled by its user."}
        return {}

    def _one(self, among: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
        if name not in among:
            raise Refused(404, f"{name} is not found.")
        return among[name]

    def _run(self, job: dict[str, Any], parent: str) -> None:
        """Train as the job asks, and serve what comes of it."""
        job["state"] = "JOB_STATE_RUNNING"
        try:
            with tempfile.TemporaryDirectory() as folder:
                spec = job["supervisedTuningSpec"]
                path = self._fetch(spec["trainingDatasetUri"], Path(folder) / "train.jsonl")
                if "validationDatasetUri" in spec:
                    read(self._fetch(spec["validationDatasetUri"], Path(folder) / "validation.jsonl"))
                examples = read(path)
                tokens = path.stat().st_size // 4
                stats = {"tuningDatasetExampleCount": str(len(examples)), "totalBillableTokenCount": str(tokens)}
                job["tuningDataStats"] = {"supervisedTuningDataStats": stats}
                self.hold.wait(60)
                if job["state"] != "JOB_STATE_RUNNING":
                    return
                tune(path, Path(folder) / "out")
                describer = LocalDescriber(load(Path(folder) / "out"))
        except (MelodifyError, NotFound) as error:
            job["error"] = {"code": 3, "message": f"Invalid dataset: {error}"}
            job["state"] = "JOB_STATE_FAILED"
            return
        except Exception:
            job["error"] = {"code": 13, "message": traceback.format_exc()}
            job["state"] = "JOB_STATE_FAILED"
            return
        if job["state"] != "JOB_STATE_RUNNING":
            return
        epochs = int(spec["hyperParameters"]["epochCount"])
        stats["tuningStepCount"] = str(epochs * len(examples) // 16)
        job["tuningJobMetadata"] = {"completedEpochCount": str(epochs)}
        model, endpoint = f"{parent}/models/{self.next_id()}", f"{parent}/endpoints/{self.next_id()}"
        self._describers[model] = describer
        self.models[model] = {"name": model, "displayName": job["tunedModelDisplayName"], "labels": job["labels"]}
        self.endpoints[endpoint] = {
            "name": endpoint,
            "displayName": job["tunedModelDisplayName"],
            "labels": job["labels"],
            "deployedModels": [{"id": self.next_id(), "model": model}],
        }
        job["tunedModel"] = {"model": f"{model}@1", "endpoint": endpoint}
        job["experiment"] = f"{parent}/metadataStores/default/contexts/{self.next_id()}"
        job["state"] = "JOB_STATE_SUCCEEDED"

    def _fetch(self, uri: str, path: Path) -> Path:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        with closing(gcs.client(self.gcs_url)) as storage:
            storage.bucket(bucket).blob(name).download_to_filename(path)
        return path

    def authorise(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, f"Request had invalid credentials: {request.headers.get('authorization')}")


def known(kind: type[BaseModel], value: Any) -> Any:
    """`value` as one of the SDK's own types, which know no other fields."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(400, f"Invalid {kind.__name__}: {first['loc']} {first['msg']}") from None


def read_question(body: dict[str, Any]) -> tuple[str, types.GenerationConfig]:
    """The user's text and the configuration of a generateContent request."""
    if unknown := set(body) - _CONTENT_FIELDS:
        raise Refused(400, f"Unknown name {sorted(unknown)}")
    contents = [known(types.Content, one) for one in body["contents"]]
    known(types.Content, body["systemInstruction"])
    config = known(types.GenerationConfig, body.get("generationConfig", {}))
    if config.response_mime_type != "application/json" or config.response_schema is None:
        raise Refused(400, "this emulator answers by a response schema only")
    return "".join(part.text for part in contents[-1].parts), config


def content(answer: Any, model: str, question: str, most: int | None = None) -> dict[str, Any]:
    """A generateContent answer; cut off where it is longer than `most` tokens."""
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    whole = len(text)
    text = text if most is None else text[: 4 * most]
    return {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": text}]},
                "finishReason": "STOP" if len(text) == whole else "MAX_TOKENS",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": len(question) // 4 + 200,
            "candidatesTokenCount": len(text) // 4,
            "totalTokenCount": len(question) // 4 + 200 + len(text) // 4,
        },
        "modelVersion": model.rsplit("/", 1)[-1],
    }


def blocked(reason: str = "SAFETY") -> dict[str, Any]:
    """The question was blocked."""
    return {
        "promptFeedback": {"blockReason": reason},
        "usageMetadata": {"promptTokenCount": 300, "totalTokenCount": 300},
    }


def stopped(reason: str = "SAFETY") -> dict[str, Any]:
    """The answer was stopped; that is billed too."""
    return {
        "candidates": [{"finishReason": reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 300, "candidatesTokenCount": 10, "totalTokenCount": 310},
    }
