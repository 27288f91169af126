"""Steps of Cloud Build's files on this machine, one after the other, as Cloud Build runs them: their scripts, with
their environment and the substitutions. Only those whose image is Python's; the others need a Docker engine.

    make build-local                          # against the cloud on this machine, what CI does not run by itself
    make build-local STEPS="lint template"      # of cloudbuild.yaml, if no other file is said before them
    make build-local STEPS="cloudbuild.clean.yaml clean"
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "runs" / "images"
GIVEN = {
    "PROJECT_ID": "melodify",
    "BUILD_ID": os.environ.get("BUILD_ID") or str(uuid.uuid4()),
    "COMMIT_SHA": "0" * 40,
    "SHORT_SHA": "0" * 7,
    "TAG_NAME": "v0.0.0",
    "_BUCKET": "melodify",
    "_RESULTS": "melodify",
}
"""What Cloud Build and its trigger would give; the buckets are those of the cloud on this machine."""


def main(words: list[str]) -> int:
    wanted: dict[str, list[str]] = {}
    file = "cloudbuild.yaml"
    for word in words:
        if word.endswith(".yaml"):
            file = word
        else:
            wanted.setdefault(file, []).append(word)
    made = [stand_in(name) for name in ("serving-cpu", "serving-cuda", "web") if not (IMAGES / f"{name}.ref").exists()]
    try:
        return next((code for file, steps in wanted.items() if (code := run_steps(file, steps))), 0)
    finally:
        for path in [*made, ROOT / "runs" / "released"]:
            path.unlink(missing_ok=True)


def run_steps(file: str, wanted: list[str]) -> int:
    build = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
    if unknown := set(wanted) - {step["id"] for step in build["steps"]}:
        return say(f"no step {', '.join(sorted(unknown))} in {file}")
    variables = {**build["substitutions"], **GIVEN}
    variables = {name: filled(value, variables) for name, value in variables.items()}
    for step in build["steps"]:
        if step["id"] not in wanted:
            continue
        if not step["name"].startswith("python:"):
            return say(f"{step['id']} runs in {step['name']}, which needs a Docker engine")
        began = time.monotonic()
        code = run(step, build, variables)
        say(f"{step['id']}: {'passed' if code == 0 else f'ended with {code}'}, {time.monotonic() - began:.0f} s")
        if code and not step.get("allowFailure"):
            return code
    return 0


def run(step: dict[str, Any], build: dict[str, Any], variables: dict[str, str]) -> int:
    said = [*build["options"].get("env", []), *step.get("env", [])]
    its_own = dict(filled(one, variables).split("=", 1) for one in said)
    here = {name: value for name, value in os.environ.items() if name.startswith("MELODIFY_")}  # the cloud's addresses
    environment = {**os.environ, **variables, **its_own, **here}
    interpreter = step["script"].partition("\n")[0].removeprefix("#!")
    command = [interpreter, "-c", step["script"]]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def filled(text: str, variables: dict[str, str]) -> str:
    """`text` with ``$NAME`` and ``${NAME}`` replaced."""
    found = re.sub(r"\$(?:(\w+)|{(\w+)})", lambda match: variables[match[1] or match[2]], text)
    return filled(found, variables) if "$" in found else found


def stand_in(name: str) -> Path:
    """The address of an image that was not pushed, in the place of one that was."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.ref"
    path.write_text(f"us-central1-docker.pkg.dev/melodify/melodify/{name}@sha256:{'0' * 64}\n", encoding="utf-8")
    return path


def say(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
