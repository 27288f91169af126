"""The strict runner: what papermill lets pass is an error here."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup

from emulators.cloud import Cloud
from melodify_lib import notebooks
from melodify_lib.cloud import endpoints
from melodify_lib.errors import NotebookError
from melodify_lib.notebooks import LIMITS, Limits, find_notebooks, new_run, point_latest, run_notebooks
from melodify_lib.report import write_report
from melodify_lib.settings import PROFILES, Settings
from melodify_lib.store import open_store, put_folder


def notebook(folder: Path, name: str, *cells: str) -> Path:
    code = [nbformat.v4.new_code_cell(source) for source in cells]
    code[0].metadata["tags"] = ["parameters"]
    path = folder / f"{name}.ipynb"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": kernel}), path)
    return path


def test_parameters_arrive_and_an_unknown_one_stops_before_anything_runs(tmp_path: Path) -> None:
    path = notebook(tmp_path, "01_sum", "n = 1\nout = '.'", "open(f'{out}/n.txt', 'w').write(str(n))")
    run = new_run(tmp_path / "runs")
    with pytest.raises(NotebookError, match="'m'"):
        run_notebooks([path], run, {"m": 2})
    assert list(run.iterdir()) == []
    (result,) = run_notebooks([path], run, {"n": 2})
    assert result.passed
    assert (run / "n.txt").read_text() == "2"
    assert point_latest(run).resolve() == run


def test_a_failed_cell_is_named_and_its_notebook_kept(tmp_path: Path) -> None:
    broken = notebook(tmp_path, "01_broken", "n = 1", "print('before')", "1 / 0")
    works = notebook(tmp_path, "02_works", "n = 1")
    run = new_run(tmp_path / "runs")
    failed, passed = run_notebooks([broken, works], run, {})
    assert (failed.passed, passed.passed) == (False, True)
    assert failed.error is not None and "cell" in failed.error and "ZeroDivisionError" in failed.error
    assert json.loads((run / "01_broken.json").read_text())["error"] == failed.error
    assert "before" in (run / "01_broken.ipynb").read_text()
    report = write_report(run, [failed, passed]).read_text()
    assert "ZeroDivisionError" in report and (run / "01_broken.html").exists()


def test_a_run_that_failed_is_kept_in_a_bucket_with_all_that_its_report_shows(gcp: Cloud, tmp_path: Path) -> None:
    makes = (
        "from pathlib import Path\n"
        "for name in ('song/track.wav', 'song/picture.png', 'dataset/train.jsonl'):\n"
        "    (Path(out) / name).parent.mkdir(exist_ok=True)\n"
        "    (Path(out) / name).write_bytes(b'-')"
    )
    broken = notebook(tmp_path, "01_broken", "profile = ''\nout = '.'", makes, "1 / 0")
    melodify = [sys.executable, "-c", "from melodify_lib.cli import main; main()", "notebooks"]
    runs = ("--runs", str(tmp_path / "runs"))
    run = subprocess.run([*melodify, "run", "--folder", str(broken.parent), *runs], capture_output=True, check=False)
    assert run.returncode == 1
    keep = [*melodify, "keep", f"gs://{gcp.environment['MELODIFY_BUCKET']}/builds/7", *runs]
    kept = subprocess.run(keep, capture_output=True, text=True, check=True).stdout.split()
    latest = (tmp_path / "runs" / "latest").resolve()
    store = open_store(Settings.load(store=f"gs://{gcp.environment['MELODIFY_BUCKET']}/builds/7"))
    assert store.list() == [f"{latest.name}/{name}" for name in KEPT] and len(kept) == len(KEPT)
    assert json.loads(store.get(f"{latest.name}/01_broken.json"))["passed"] is False
    with pytest.raises(NotebookError, match="no run in"):
        notebooks.keep(tmp_path, store)


KEPT = [
    *("01_broken.html", "01_broken.ipynb", "01_broken.json", "report.html"),
    *("song/picture.png", "song/track.wav"),
]


def test_a_page_asks_no_other_server_and_says_what_pictures_show_and_forms_are_for(tmp_path: Path) -> None:
    shows = (
        "from melodify_lib import plots, widgets\n"
        "plots.plot_curves({'figure': [1, 2]}, [1, 2], over='steps < examples')",
        "with widgets.progress('counted') as on_progress:\n    for done in range(100): on_progress(done + 1, 100)",
        "widgets.SongForm(None)",
    )
    notebook(tmp_path, "01_shows", "profile = ''", *shows)
    melodify = [sys.executable, "-c", "from melodify_lib.cli import main; main()", "notebooks", "run"]
    folders = ["--folder", str(tmp_path), "--runs", str(tmp_path / "runs")]
    done = subprocess.run([*melodify, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("Alternative text|KeyboardInterrupt|ERROR|WARN", done.stderr), done.stderr
    page = (tmp_path / "runs/latest/01_shows.html").read_text("utf-8")
    soup = BeautifulSoup(page, "html.parser")
    (picture,) = soup.find_all("img")
    assert picture["alt"] == "Curves over steps < examples: figure from 1 to 2."
    assert not re.findall(r"""<[^>]*(?:src|href)=["']?(?:https?:)?//|@import|url\(["']?http|import\(["']http""", page)
    said = " ".join(output.text for output in soup.select(".jp-OutputArea-output")).strip()
    assert said.startswith("In JupyterLab a form stands here") and "counted" not in said


def test_a_cell_that_hangs_is_stopped(tmp_path: Path) -> None:
    path = notebook(tmp_path, "01_hangs", "n = 1", "while True: pass")
    (result,) = run_notebooks([path], new_run(tmp_path / "runs"), {}, limits=Limits(2, 5))
    assert result.error is not None and "2 s" in result.error and "cell 1" in result.error


def test_a_cell_that_is_stopped_has_the_time_to_tidy_up(tmp_path: Path) -> None:
    tidy = "try:\n    time.sleep(60)\nfinally:\n    time.sleep(4)\n    open(f'{out}/tidied', 'w').close()"
    path = notebook(tmp_path, "01_tidies", "out = '.'", "import time", tidy)
    run = new_run(tmp_path / "runs")
    (result,) = run_notebooks([path], run, {}, limits=Limits(2, 60))
    assert not result.passed and (run / "tidied").exists()


def test_each_profile_has_its_limits() -> None:
    assert LIMITS.keys() == PROFILES.keys()
    assert LIMITS["gcp"].cell_s > 2 * endpoints.OPERATION_S
    assert LIMITS["gcp"].tidy_s > endpoints.OPERATION_S


def test_the_kernel_is_this_interpreter(tmp_path: Path) -> None:
    path = notebook(tmp_path, "01_kernel", "out = '.'", "import sys; open(f'{out}/kernel', 'w').write(sys.prefix)")
    run = new_run(tmp_path / "runs")
    run_notebooks([path], run, {})
    import sys

    assert (run / "kernel").read_text() == sys.prefix


def test_what_a_notebook_made_is_handed_on(tmp_path: Path) -> None:
    makes = notebook(tmp_path, "01_makes", "out = '.'", "import os; os.mkdir(f'{out}/dataset')")
    takes = notebook(tmp_path, "02_takes", "dataset = 'shipped'", "assert dataset.endswith('/dataset')")
    assert all(result.passed for result in run_notebooks([makes, takes], new_run(tmp_path / "runs"), {}))


def test_notebooks_are_found_by_number(tmp_path: Path) -> None:
    with pytest.raises(NotebookError, match="no notebooks"):
        find_notebooks(tmp_path)
    path = notebook(tmp_path, "03_x", "n = 1")
    notebook(tmp_path, "draft", "n = 1")
    assert find_notebooks(tmp_path) == find_notebooks(tmp_path, ["03"]) == [path]
    with pytest.raises(NotebookError, match="'04'"):
        find_notebooks(tmp_path, ["04"])


def test_a_deployment_that_was_cut_off_is_taken_away(
    gcp: Cloud, untrained: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = nbformat.read(next(path for path in SHIPPED if path.stem == "05_serve_musicgen"), as_version=4).cells
    (deploys,) = [cell.source for cell in cells if cell.cell_type == "code" and "endpoints.deploy(" in cell.source]
    monkeypatch.setattr(endpoints, "POLL_S", 0.02)
    waited = endpoints.wait_for

    def interrupted(settings: Settings, operation: Any, what: str) -> Any:
        if what.startswith("deploying"):
            raise KeyboardInterrupt
        return waited(settings, operation, what)

    monkeypatch.setattr(endpoints, "wait_for", interrupted)
    names = {"profile": "gcp", "name": str(untrained["mono"]), "machine_type": "n2-standard-4", "keep": False}
    modules = {"Path": Path, "Settings": Settings, "endpoints": endpoints}
    with pytest.raises(KeyboardInterrupt):
        exec(deploys, {**names, **modules, "open_store": open_store, "put_folder": put_folder})
    assert any(one.path.endswith(":deployModel") for one in gcp.vertex.served())
    assert not gcp.vertex.endpoints and not gcp.vertex.servers and not gcp.vertex.models


SHIPPED = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_notebooks_are_thin_and_parameterised(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert cells[0].source.startswith("# ")
    for cell in code:
        assert not cell.outputs and cell.execution_count is None
        assert not any(line.lstrip().startswith(("!", "%pip", "%%bash")) for line in cell.source.splitlines())
        assert len(cell.source.splitlines()) <= 30
