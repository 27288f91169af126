"""Vertex AI Pipelines: a job's spec is checked as the service would, and then executed, by kfp.local in a process.

Its tasks find the machine's own environment (credentials and addresses), share a cache, and write into a folder of
this machine in the place of the bucket's. What the pipeline itself stores, it stores where its parameters say.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.cloud.aiplatform_v1.types import PipelineJob
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from emulators.registry import PARENT, check_labels, now, parse
from emulators.server import Refused, Request, route

_ID = re.compile(r"[a-z][-a-z0-9]{0,127}")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "STRUCT": dict,
    "LIST": list,
}  # fmt: skip
_JOB = PARENT + r"/pipelineJobs/(?P<number>[a-z][-a-z0-9]*)"


class PipelineRoutes:
    """For an emulator of Vertex AI."""

    machine: dict[str, str]
    authorise: Callable[[Request], None]
    next_id: Callable[[], str]
    operation: Callable[..., Any]

    def __init__(self) -> None:
        self.pipeline_jobs: dict[str, dict[str, Any]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="melodify-pipelines-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        super().__init__()

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            _kill(process)
        super().__exit__(*error)  # type: ignore[misc]
        shutil.rmtree(self._folder, ignore_errors=True)

    @route("POST", PARENT + r"/pipelineJobs")
    def create_pipeline_job(self, request: Request, parent: str) -> Any:
        self.authorise(request)
        job = parse(PipelineJob, request.body)
        number = request.query.get("pipelineJobId", [f"job-{self.next_id()}"])[0]
        if not _ID.fullmatch(number):
            raise Refused(400, f"Invalid pipeline job id {number!r}")
        check_labels(job.get("labels", {}))
        _check_spec(job)
        name = f"{parent}/pipelineJobs/{number}"
        if name in self.pipeline_jobs:
            raise Refused(409, f"{name} already exists")
        made = {**job, "name": name, "state": "PIPELINE_STATE_PENDING", "createTime": now(), "jobDetail": {}}
        tasks = job["pipelineSpec"]["root"]["dag"]["tasks"]
        made["jobDetail"]["taskDetails"] = [{"taskName": task, "state": "PENDING"} for task in tasks]
        self.pipeline_jobs[name] = made
        threading.Thread(target=self._execute, args=(made,), daemon=True).start()
        return made

    @route("GET", _JOB)
    def get_pipeline_job(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        return self._job(f"{parent}/pipelineJobs/{number}")

    @route("GET", PARENT + r"/pipelineJobs")
    def list_pipeline_jobs(self, request: Request, parent: str) -> Any:
        self.authorise(request)
        return {"pipelineJobs": list(self.pipeline_jobs.values())}

    @route("POST", _JOB + r":cancel")
    def cancel_pipeline_job(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        job = self._job(f"{parent}/pipelineJobs/{number}")
        if job["state"] in ("PIPELINE_STATE_PENDING", "PIPELINE_STATE_RUNNING"):
            job["state"] = "PIPELINE_STATE_CANCELLED"
            if (process := self._processes.get(job["name"])) is not None:
                _kill(process)
        return {}

    @route("DELETE", _JOB)
    def delete_pipeline_job(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        job = self._job(f"{parent}/pipelineJobs/{number}")
        if job["state"] == "PIPELINE_STATE_RUNNING":
            raise Refused(400, "the job is running")
        del self.pipeline_jobs[job["name"]]
        return self.operation(parent, "DeleteOperationMetadata")

    def _job(self, name: str) -> dict[str, Any]:
        if name not in self.pipeline_jobs:
            raise Refused(404, f"{name} is not found.")
        return self.pipeline_jobs[name]

    def _execute(self, job: dict[str, Any]) -> None:
        folder = self._folder / job["name"].rpartition("/")[2]
        folder.mkdir()
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MELODIFY_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "emulators.pipeline_process", str(folder), str(self._folder / "cache")],
            env={**environment, **self.machine, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._processes[job["name"]] = process
        if job["state"] == "PIPELINE_STATE_PENDING":
            job["state"] = "PIPELINE_STATE_RUNNING"
        details = {one["taskName"]: one for one in job["jobDetail"]["taskDetails"]}
        while process.poll() is None:
            for task, detail in details.items():
                if any(folder.glob(f"root/*/{task}")):
                    detail["state"] = "RUNNING"
            time.sleep(0.02)
        if job["state"] == "PIPELINE_STATE_CANCELLED":
            return
        said = folder / "end.json"
        end = json.loads(said.read_text("utf-8")) if said.exists() else {"error": "the process was killed", "task": ""}
        for task, detail in details.items():
            ran = any(folder.glob(f"root/*/{task}"))
            detail["state"] = "SUCCEEDED" if ran else "SKIPPED"
            if task == end.get("task") and "error" in end:
                detail |= {"state": "FAILED", "error": {"code": 9, "message": end["error"]}}
        if "error" in end:
            job["error"] = {"code": 9, "message": end["error"]}
        else:
            output = {"artifacts": [{"uri": end["uri"]}]}
            details[end["task"]]["outputs"] = {end["key"]: output}
        job["state"] = "PIPELINE_STATE_FAILED" if "error" in end else "PIPELINE_STATE_SUCCEEDED"


def _check_spec(job: dict[str, Any]) -> None:
    """The spec in KFP's own form, and each parameter that it asks for, of its type, and no other."""
    try:
        json_format.ParseDict(job.get("pipelineSpec", {}), pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise Refused(400, f"Invalid pipelineSpec: {error}") from None
    config = job.get("runtimeConfig", {})
    if not config.get("gcsOutputDirectory", "").startswith("gs://"):
        raise Refused(400, "runtime_config.gcs_output_directory must be a gs:// address")
    known = job["pipelineSpec"]["root"].get("inputDefinitions", {}).get("parameters", {})
    given = config.get("parameterValues", {})
    for name, value in given.items():
        if name not in known:
            raise Refused(400, f"unknown parameter {name!r}")
        if not isinstance(value, _TYPES[known[name]["parameterType"]]):
            raise Refused(400, f"parameter {name!r} is no {known[name]['parameterType']}")
    for name, what in known.items():
        if name not in given and not what.get("isOptional"):
            raise Refused(400, f"parameter {name!r} is required")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
