"""A run of the pipeline on this machine, with kfp.local: each step in a process of its own, cached."""

import builtins
import contextlib
import json
import logging
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melodify_lib.errors import PipelineError, SettingsError
from melodify_lib.logs import TRACE
from melodify_lib.settings import Settings
from pipelines.graph import spec_of, tasks_of


def run(
    pipeline: Any,
    parameters: dict[str, Any],
    settings: Settings,
    *,
    request: str,
    is_whole: Callable[[str], bool],
    on_event: Callable[[str], None],
    on_look: Callable[..., None] = lambda *looks: None,
) -> tuple[dict[str, str], str]:
    """Each task's state, and the address of the pipeline's output.

    Artifacts, log and cache go under ``pipeline/`` in the store. Raises `PipelineError`, naming the task that failed,
    what it said last, and where the log is.
    """
    del request, is_whole, on_look  # a run on this machine costs nothing, and ends with whoever started it
    done, folder = _execute(pipeline, parameters, settings)
    # kfp.local does not say which tasks it took from its cache; those it ran left their output here.
    states = {task: "done" if any(folder.glob(f"**/{task}")) else "cached" for task in tasks_of(spec_of(pipeline))}
    for task, state in states.items():
        on_event(f"{task}: {state}")
    return states, str(done.uri)


def _execute(pipeline: Any, parameters: dict[str, Any], settings: Settings) -> tuple[Any, Path]:
    """The output of a run of `pipeline`, and the folder with its artifacts and its log. Raises as `run` does."""
    from kfp import local

    if settings.store.startswith("gs://"):
        raise SettingsError(f"a run on this machine needs a folder as store, not {settings.store}; set MELODIFY_STORE")
    root = Path(settings.store).resolve() / "pipeline"
    folder = root / f"run-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder),
        enable_caching=True,  # as far as the pipeline has it
        cache_root=str(root / "cache"),
    )
    log = folder / "log.txt"
    with (
        log.open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
        _process_kept(),
        _trace_in_environment(),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # that resources have no effect here
        try:
            return pipeline(**parameters).output, folder
        except RuntimeError as error:
            file.flush()
            raise PipelineError(f"{reason(error, log)}; the log is {log}") from None


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """kfp.local replaces the root logger's handlers, and `print`, and puts them back; tasks at the same time do not.

    The next run in this process would then fail to say why a task failed, other logs would be lost, and numba, which
    looks at `print`, could not be imported.
    """
    root = logging.getLogger()
    handlers, level, own_print = root.handlers[:], root.level, print
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        builtins.print = own_print


@contextlib.contextmanager
def _trace_in_environment() -> Iterator[None]:
    """A task is a process, to which kfp.local hands on the environment and nothing else."""
    before = os.environ.get("MELODIFY_TRACE")
    os.environ["MELODIFY_TRACE"] = TRACE.get()
    try:
        yield
    finally:
        if before is None:
            del os.environ["MELODIFY_TRACE"]
        else:
            os.environ["MELODIFY_TRACE"] = before


def reason(error: RuntimeError, log: Path) -> str:
    """Which task failed, and the exception that its process printed last."""
    task = re.sub(r"\x1b\[\d+m", "", str(error)).rpartition("failed: ")[2].strip(" '.")
    said = "\n".join(_message(line) for line in log.read_text(encoding="utf-8").splitlines())
    raised = re.findall(r"^\s*[\w.]+(?:Error|Exception|Interrupt): .*$", said, re.MULTILINE)
    return f"task {task!r} failed" + (f": {raised[-1].strip().removeprefix('melodify_lib.errors.')}" if raised else "")


def _message(line: str) -> str:
    """What a line of the log says, be it JSON of ours (with a traceback in it) or not."""
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return str(json.loads(line)["message"])
    return line
