"""What test_faults orders, for a process too, which is killed: `python orders.py tune FOLDER`. Imports little."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from melodify_lib.cloud import endpoints
from melodify_lib.settings import Settings

DATA = Path(__file__).parent.parent / "data" / "generate_jsonl" / "output" / "test.jsonl"
IMAGE = "us-docker.pkg.dev/melodify/melodify/serving:1"
PARAMETERS: dict[str, Any] = {
    "caption": {}, "captioner": {}, "image_sha256": "", "genre": "", "describer_settings": {}, "describer_version": "",
    "musician_settings": {}, "musician_version": "", "seconds": 4.0, "seed": 7,
}  # fmt: skip


def tune(settings: Settings, folder: Path) -> str:
    """The model that is tuned."""
    from melodify_lib.cloud import tuned
    from melodify_lib.tuning import Plan, tuner

    folder.mkdir(exist_ok=True)
    lines = DATA.read_text("utf-8").splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:20]), encoding="utf-8")
    tuner(settings, Plan(budget=10)).tune(folder / "train.jsonl", folder / "tuned")
    return tuned.load(folder / "tuned").base_model


def register(settings: Settings, folder: Path) -> str:
    """The model's name without its place."""
    return endpoints.register(settings, IMAGE, environment={"MELODIFY_MUSICIAN": "arranger"}).rpartition("/")[2]


def deploy(settings: Settings, folder: Path) -> str:
    """The endpoint's name without its place."""
    model = f"{place(settings)}/models/{register(settings, folder)}"
    return endpoints.deploy(settings, model)[0].rpartition("/")[2]


def submit(settings: Settings, folder: Path) -> str:
    """The job's name without its place and number."""
    from pipelines import vertex
    from pipelines.graph import music_pipeline

    return vertex.submit(music_pipeline(IMAGE), PARAMETERS, settings).rpartition("/")[2][:14]


def place(settings: Settings) -> str:
    return f"projects/{settings.project}/locations/{settings.location}"


if __name__ == "__main__":
    globals()[sys.argv[1]](Settings.load(), Path(sys.argv[2]))
