"""Vertex AI Pipelines: a job's spec is checked as the service would, and then executed, by kfp.local in a process.

Its tasks find the machine's own environment (credentials and addresses), share a cache, and write into a folder of
this machine in the place of the bucket's, where only the pipeline's output is put. What the pipeline itself stores, it
stores where its parameters say. Of a task that failed the job says no more than the service does; `task_logs` has it.
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
from contextlib import closing
from pathlib import Path
from typing import Any

from google.cloud.aiplatform_v1.types import PipelineJob
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from emulators import gcs
from emulators.registry import PARENT, check_labels, now, parse
from emulators.server import Refused, Request, route
from pipelines.graph import tasks_of

_ID = re.compile(r"[a-z][-a-z0-9]{0,127}")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "STRUCT": dict,
    "LIST": list,
}  # fmt: skip
_ENDED = [f"PIPELINE_STATE_{name}" for name in ("SUCCEEDED", "FAILED", "CANCELLED")]
_CANCELLING_S = 0.2
_TERSE = (
    "The replica workerpool0-0 exited with a non-zero status of 1. To find out more about why your job exited please "
    "check the logs: https://console.cloud.google.com/logs/viewer"
)
_JOB = PARENT + r"/pipelineJobs/(?P<number>[a-z][-a-z0-9]*)"


class PipelineRoutes:
    """For an emulator of Vertex AI."""

    machine: dict[str, str]
    gcs_url: str
    authorise: Callable[[Request], None]
    next_id: Callable[[], str]
    operation: Callable[..., Any]

    def __init__(self) -> None:
        self.pipeline_jobs: dict[str, dict[str, Any]] = {}
        self.task_logs: dict[str, str] = {}
        """What Cloud Logging would have, by the number of the task's job."""
        self._folder = Path(tempfile.mkdtemp(prefix="melodify-pipelines-"))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._rounds: dict[str, dict[str, Any]] = {}
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
        tasks = job["pipelineSpec"]["root"]["dag"]["tasks"]
        details = [{"taskName": task, "taskId": self.next_id(), "state": "PENDING"} for task in tasks]
        detail = {"taskDetails": details}
        made = {**job, "name": name, "state": "PIPELINE_STATE_PENDING", "createTime": now(), "jobDetail": detail}
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
            job["state"] = "PIPELINE_STATE_CANCELLING"  # until its process has ended
        return {}

    @route("DELETE", _JOB)
    def delete_pipeline_job(self, request: Request, parent: str, number: str) -> Any:
        self.authorise(request)
        job = self._job(f"{parent}/pipelineJobs/{number}")
        if job["state"] not in _ENDED:
            raise Refused(400, f"the job is {job['state']}; it must be in a final state")
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
        while process.poll() is None:
            self._look_at(job, folder)
            if job["state"] == "PIPELINE_STATE_CANCELLING":
                time.sleep(_CANCELLING_S)
                _kill(process)
            time.sleep(0.02)
        if job["state"] == "PIPELINE_STATE_CANCELLING":
            job["state"] = "PIPELINE_STATE_CANCELLED"
            return
        self._look_at(job, folder)
        said = folder / "end.json"
        self._end(job, json.loads(said.read_text("utf-8")) if said.exists() else {"error": "killed", "task": ""})

    def _look_at(self, job: dict[str, Any], folder: Path) -> None:
        """A task has a folder as soon as it runs, in a loop one for each round, and then its output in it."""
        tasks = tasks_of(job["pipelineSpec"])
        for path in folder.glob("root/*/**/"):
            if path.name in tasks:
                detail = self._detail(job, path)
                if detail["state"] == "PENDING":
                    main_job = f"{job['name'].partition('/pipelineJobs/')[0]}/customJobs/{self.next_id()}"
                    detail |= {"state": "RUNNING", "executorDetail": {"containerDetail": {"mainJob": main_job}}}
                if detail["state"] == "RUNNING" and (outputs := self._outputs(job, path)) is not None:
                    detail |= {"state": "SUCCEEDED", "outputs": outputs}

    def _outputs(self, job: dict[str, Any], path: Path) -> dict[str, Any] | None:
        """The files that the task in the folder `path` hands on; None until it has ended."""
        try:
            said = json.loads((path / "executor_output.json").read_text("utf-8"))
        except (FileNotFoundError, ValueError):  # or it is being written
            return None
        uris = {key: one["artifacts"][0]["uri"] for key, one in said.get("artifacts", {}).items()}
        return {
            key: {"artifacts": [{"uri": self._put(job, {"task": path.name, "key": key, "uri": uri})}]}
            for key, uri in uris.items()
            if Path(uri).is_file()
        }

    def _detail(self, job: dict[str, Any], path: Path) -> dict[str, Any]:
        """What is said of the task that has the folder `path`."""
        details = job["jobDetail"]["taskDetails"]
        loop, is_round, _ = path.parent.name.partition("-iteration-")
        known = next(one for one in details if one["taskName"] == (loop if is_round else path.name))
        if not is_round:
            return known
        known["state"] = "RUNNING"
        if str(path) not in self._rounds:
            new = {"taskName": path.name, "taskId": self.next_id(), "parentTaskId": known["taskId"], "state": "PENDING"}
            self._rounds[str(path)] = new
            job["jobDetail"]["taskDetails"] = [*details, new]
        return self._rounds[str(path)]

    def _end(self, job: dict[str, Any], end: dict[str, Any]) -> None:
        """Each task's state and the job's own; of a task that failed no more than the service says."""
        details = job["jobDetail"]["taskDetails"]
        tasks = tasks_of(job["pipelineSpec"])
        if "error" not in end:
            for one in details:
                one["state"] = "SKIPPED" if one["state"] == "PENDING" else "SUCCEEDED"
            task = next(one for one in details if one["taskName"] == end["task"])
            task["outputs"] = {end["key"]: {"artifacts": [{"uri": self._put(job, end)}]}}
            job["state"] = "PIPELINE_STATE_SUCCEEDED"
            return
        at = tasks.index(end["task"]) if end["task"] in tasks else len(tasks)
        for one in details:
            if one["state"] == "PENDING":
                one["state"] = "SKIPPED" if one["taskName"] in tasks[:at] else "NOT_TRIGGERED"
            elif one["state"] == "RUNNING":
                one |= {"state": "FAILED", "error": {"code": 9, "message": _TERSE}}
                if "executorDetail" in one:
                    main_job = one["executorDetail"]["containerDetail"]["mainJob"]
                    self.task_logs[main_job.rpartition("/")[2]] = end["error"]
        said = f"The DAG failed because some tasks failed. The failed tasks are: [{end['task']}]."
        job |= {"state": "PIPELINE_STATE_FAILED", "error": {"code": 9, "message": said}}

    def _put(self, job: dict[str, Any], end: dict[str, Any]) -> str:
        """The address of the pipeline's output, which is put into the bucket if it is a file of this machine."""
        uri: str = end["uri"]
        if uri.startswith("gs://"):
            return uri
        name, task = job["name"].rpartition("/")[2], f"{end['task']}_-{self.next_id()}"
        address = f"{job['runtimeConfig']['gcsOutputDirectory']}/{name}/{task}/{end['key']}"
        bucket, _, blob = address.removeprefix("gs://").partition("/")
        with closing(gcs.client(self.gcs_url)) as storage:
            storage.bucket(bucket).blob(blob).upload_from_filename(uri)
        return address


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
