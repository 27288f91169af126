"""One run of a pipeline job: FOLDER has the job, and gets the artifacts and how it ended."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import yaml
from kfp import components, local

from pipelines.local import reason


def main(folder: Path, cache: Path) -> dict[str, Any]:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    spec = job["pipelineSpec"]
    types = {name: one["parameterType"] for name, one in spec["root"]["inputDefinitions"]["parameters"].items()}
    parameters = {
        name: int(float(value)) if types[name] == "NUMBER_INTEGER" else value
        for name, value in job["runtimeConfig"]["parameterValues"].items()
    }
    output = spec["root"]["dag"]["outputs"]["artifacts"]["Output"]["artifactSelectors"][0]
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "root"),
        enable_caching=True,  # what a task's spec says of it is kept to
        cache_root=str(cache),
    )
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            done = components.load_component_from_text(yaml.safe_dump(spec))(**parameters)
        except RuntimeError as error:
            file.flush()
            said = reason(error, log)
            return {"error": said, "task": said.partition("'")[2].partition("'")[0]}
    return {"uri": done.output.uri, "task": output["producerSubtask"], "key": output["outputArtifactKey"]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that resources have no effect here
    end = main(Path(sys.argv[1]), Path(sys.argv[2]))
    Path(sys.argv[1], "end.json").write_text(json.dumps(end), encoding="utf-8")
