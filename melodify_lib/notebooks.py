"""Run the notebooks strictly: what papermill lets pass is an error here.

An unknown parameter stops before anything runs, the kernel is this interpreter's, each cell has a
time limit (`LIMITS`), and the executed copy and one JSON result per notebook are written even when a cell
fails. A run's folder holds it all:

    runs/<time>/                      runs/latest points to the newest
        02_synthesize_dataset.ipynb   the executed copy
        02_synthesize_dataset.json    its result
        dataset/ describer/ song/     what the notebooks made
        report.html                   the song, its card, and every notebook as a page
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melodify_lib.errors import MissingDependencyError, NotebookError, install
from melodify_lib.store import FolderStore, Store


@dataclass(frozen=True)
class Limits:
    """How long a cell may run, in seconds, and how long it may then tidy up (`finally`) before it is killed.

    A cell that runs longer is interrupted, as by Ctrl-C: what it ordered in the cloud is cancelled or taken away.
    """

    cell_s: float
    tidy_s: float


LIMITS = {"local": Limits(300, 5), "gcp": Limits(86_400, 7_200)}
"""By profile. In the cloud a deployment takes ten minutes and tuning hours, so that a day ends only what is stuck; and
before a deployment can be taken away it must be waited for.
"""
KERNEL = "python3"
HANDED_ON = {"dataset": "dataset", "describer_model": "describer"}
"""Parameter → folder of the run that a later notebook gets in it, once an earlier one has made it."""

KEPT = ("*.ipynb", "*.json", "*.html", "song/*")
"""What `keep` keeps of a run's folder: the report, and all that it shows."""


@dataclass(frozen=True)
class NotebookResult:
    """How one notebook went. `error` is None, or says which cell failed and how."""

    notebook: str
    passed: bool
    seconds: float
    cells: int
    parameters: dict[str, Any]
    error: str | None = None


def find_notebooks(folder: Path, only: Iterable[str] = ()) -> list[Path]:
    """The notebooks in `folder` by number; only those whose names start with one of `only`, if any are given."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise NotebookError(f"no notebooks in {folder.resolve()}; give the folder with --folder")
    wanted = tuple(only)
    for prefix in wanted:
        if not any(path.name.startswith(prefix) for path in paths):
            raise NotebookError(f"no notebook starts with {prefix!r}; there are: {', '.join(p.stem for p in paths)}")
    return [path for path in paths if not wanted or path.name.startswith(wanted)]


def new_run(root: Path) -> Path:
    """A new folder ``root/<time>``."""
    run = root.resolve() / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    run.mkdir(parents=True)
    return run


def point_latest(run: Path) -> Path:
    """Point ``latest`` beside the folder `run` to it; return the path of ``latest``."""
    aside = run.with_name(f".latest-{run.name}")
    aside.symlink_to(run.name)
    return aside.replace(run.with_name("latest"))


def keep(root: Path, store: Store) -> list[str]:
    """Put the newest run's notebooks, results, report and song into `store`, as they are; their addresses.

    A run that was killed has them too, as far as it came; what else notebooks made (datasets, models) is not put there.
    """
    runs = sorted(path for path in root.resolve().glob("[0-9]*T[0-9]*Z-*") if path.is_dir())
    if not runs:
        raise NotebookError(f"no run in {root.resolve()}; give the folder with --runs")
    files = sorted(path for pattern in KEPT for path in runs[-1].glob(pattern) if path.is_file())
    return [store.put(path.relative_to(runs[-1].parent).as_posix(), path.read_bytes()) for path in files]


def check_parameters(paths: list[Path], parameters: Iterable[str]) -> dict[Path, set[str]]:
    """The parameters that each notebook declares. Raises `NotebookError` for one of `parameters` that none does."""
    declared = {path: _declared(path) for path in paths}
    for name in parameters:
        if not any(name in names for names in declared.values()):
            known = ", ".join(sorted(set().union(*declared.values())))
            raise NotebookError(f"no notebook of this run has a parameter {name!r}; there are: {known}")
    return declared


def run_notebooks(
    paths: list[Path],
    run: Path,
    parameters: Mapping[str, Any],
    *,
    limits: Limits = LIMITS["local"],
    on_result: Callable[[NotebookResult], None] = lambda result: None,
) -> list[NotebookResult]:
    """Execute `paths` in order into the folder `run`, and return how each went.

    `parameters` go to every notebook that declares them; one that no notebook declares raises
    `NotebookError` before anything runs. `out` (the run's folder) and `HANDED_ON` are added.
    """
    declared = check_parameters(paths, parameters)
    store = FolderStore(run)
    results = []
    for path in paths:
        made = {name: run / folder for name, folder in HANDED_ON.items() if (run / folder).is_dir()}
        offered = {"out": str(run), **{name: str(folder) for name, folder in made.items()}, **parameters}
        result = _execute(path, run, {name: value for name, value in offered.items() if name in declared[path]}, limits)
        text = json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n"
        store.put(f"{path.stem}.json", text.encode())
        on_result(result)
        results.append(result)
    return results


def _declared(path: Path) -> set[str]:
    try:
        import papermill
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"notebooks need an extra: {install('notebooks')}") from error
    try:
        return set(papermill.inspect_notebook(str(path)))
    except Exception as error:  # papermill and nbformat raise a dozen kinds for a file that is no notebook
        raise NotebookError(f"{path} cannot be read as a notebook: {error}") from error


def _execute(path: Path, run: Path, parameters: dict[str, Any], limits: Limits) -> NotebookResult:
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from traitlets.config import Config

    # The kernel must be this interpreter's, not one of the same name in the user's home.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    executed = run / path.name
    error = None
    started = time.monotonic()
    try:
        papermill.execute_notebook(
            str(path),
            str(executed),
            parameters=parameters,
            kernel_name=KERNEL,
            cwd=str(path.parent),
            execution_timeout=limits.cell_s,
            config=Config(KernelManager={"shutdown_wait_time": 2 * limits.tidy_s}),  # after half of it, SIGTERM
            # It warns of TCP on loopback, and calls it an error that a kernel which has nothing left to do is
            # interrupted before it is ended, as jupyter_client does. What fails in a cell comes with the cell.
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            progress_bar={"desc": path.stem, "leave": False, "file": sys.stderr},
        )
    except papermill.PapermillExecutionError as failure:
        error = f"cell {failure.cell_index} failed: {failure.ename}: {failure.evalue}"
    except CellTimeoutError:
        error = f"cell {_last_cell(executed)} ran longer than {limits.cell_s:g} s and was stopped"
    except DeadKernelError:
        error = f"the kernel died in cell {_last_cell(executed)} (out of memory?)"
    return NotebookResult(
        notebook=path.stem,
        passed=error is None,
        seconds=round(time.monotonic() - started, 1),
        cells=len(json.loads(executed.read_text(encoding="utf-8"))["cells"]) if executed.exists() else 0,
        parameters=parameters,
        error=error,
    )


def _last_cell(executed: Path) -> int:
    """Index of the last cell that papermill began."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    begun = [index for index, cell in enumerate(cells) if cell["metadata"].get("papermill", {}).get("start_time")]
    return begun[-1] if begun else 0
