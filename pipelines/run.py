"""Run the compiled pipeline on this machine, with kfp.local: each step in a process of its own, cached."""

import contextlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from melodify_lib import stages
from melodify_lib.errors import PipelineError, SettingsError
from melodify_lib.image import open_image, read_bytes
from melodify_lib.music.finish import check_request
from melodify_lib.nouns import TrackCard, sha256
from melodify_lib.settings import Settings
from pipelines.graph import music_pipeline

TaskState = Literal["done", "cached"]

# No credentials and no addresses: a component has those of the machine that it runs on.
_CLOUD = ("profile", "allow_paid", "project", "location", "bucket")
_DESCRIBER = (*_CLOUD, "describer", "describer_fallback", "describer_model", "gemini_model")
_MUSICIAN = (
    *_CLOUD, "musician", "soundfont", "checkpoint", "device", "precision", "endpoint", "lyria_model", "store",
    "service_account",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished run: each task's state in order, where the card lies, and the card."""

    tasks: dict[str, TaskState]
    card_address: Path
    card: TrackCard
    seconds: float

    @property
    def song(self) -> Path:
        """The track, beside its card."""
        return self.card_address.with_name("track.wav")


def arguments(
    image: bytes | Path | str, settings: Settings, *, seconds: float = 20, seed: int = 0, genre: str | None = None
) -> dict[str, Any]:
    """The pipeline's parameters for a picture: its caption, and which models are to be used."""
    check_request(seconds, seed)
    data = read_bytes(image)
    captioner = stages.captioner(settings)
    return {
        "caption": captioner.caption(open_image(data)).model_dump(mode="json"),
        "captioner": captioner.version.model_dump(),
        "image_sha256": sha256(data),
        "genre": genre or "",
        "describer_settings": _dump(settings, _DESCRIBER),
        "describer_version": stages.describer(settings).version.version,
        "musician_settings": _dump(settings, _MUSICIAN),
        "musician_version": stages.musician(settings).version.version,
        "seconds": float(seconds),
        "seed": seed,
    }


def _dump(settings: Settings, fields: tuple[str, ...]) -> dict[str, Any]:
    """Those of the settings, for `Settings.load` in a component; a path is absolute, as a component runs elsewhere.

    What is unset goes along as "", so that the component's environment does not fill it.
    """
    values = {field: getattr(settings, field) for field in fields}
    if "store" in values and not settings.store.startswith("gs://"):
        values["store"] = Path(settings.store)
    return {
        field: str(value.resolve()) if isinstance(value, Path) else "" if value is None else value
        for field, value in values.items()
    }


def run(parameters: dict[str, Any], settings: Settings, *, caching: bool = True) -> Run:
    """Run the pipeline with `parameters` from `arguments`; a song that is no longer whole in the store is made again.

    Raises `PipelineError`, naming the task that failed, what it said last, and where the log is.
    """
    done = _run(parameters, settings, caching)
    return done if _is_whole(done) else _run(parameters, settings, caching=False)


def _is_whole(done: Run) -> bool:
    files = {done.card_address.with_name(name): digest for name, digest in done.card.files.items()}
    return all(path.is_file() and sha256(path.read_bytes()) == digest for path, digest in files.items())


def _run(parameters: dict[str, Any], settings: Settings, caching: bool) -> Run:
    """Artifacts, log and cache go under ``pipeline/`` in the store's folder."""
    from kfp import local

    if settings.store.startswith("gs://"):
        raise SettingsError(f"a run on this machine needs a folder as store, not {settings.store}; set MELODIFY_STORE")
    root = Path(settings.store).resolve() / "pipeline"
    folder = root / f"run-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    pipeline = music_pipeline()
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder),
        enable_caching=caching,
        cache_root=str(root / "cache"),
    )
    started = time.monotonic()
    log = folder / "log.txt"
    with log.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            card = Path(pipeline(**parameters).output.uri)
        except RuntimeError as error:
            file.flush()
            raise PipelineError(f"{_reason(error, log)}; the log is {log}") from None
    return Run(
        # kfp.local does not say which tasks it took from its cache; those it ran left their output here.
        tasks={task: "done" if any(folder.glob(f"*/{task}")) else "cached" for task in _tasks(pipeline)},
        card_address=card,
        card=TrackCard.from_json(card.read_bytes()),
        seconds=time.monotonic() - started,
    )


def _tasks(pipeline: Any) -> list[str]:
    """Names of the pipeline's tasks, each after those that it waits for."""
    waits = {name: list(task.dependent_tasks) for name, task in pipeline.pipeline_spec.root.dag.tasks.items()}
    return list(TopologicalSorter(waits).static_order())


def _reason(error: RuntimeError, log: Path) -> str:
    """Which task failed, and the exception that its process printed last."""
    task = re.sub(r"\x1b\[\d+m", "", str(error)).rpartition("failed: ")[2].strip(" '.")
    raised = re.findall(r"^\s*[\w.]+(?:Error|Exception|Interrupt): .*$", log.read_text(encoding="utf-8"), re.MULTILINE)
    return f"task {task!r} failed" + (f": {raised[-1].strip().removeprefix('melodify_lib.errors.')}" if raised else "")
