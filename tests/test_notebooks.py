"""The strict runner: what papermill lets pass is an error here."""

import json
from pathlib import Path

import nbformat
import pytest

from melodify_lib.errors import NotebookError
from melodify_lib.notebooks import find_notebooks, new_run, point_latest, run_notebooks
from melodify_lib.report import write_report


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


def test_a_cell_that_hangs_is_stopped(tmp_path: Path) -> None:
    path = notebook(tmp_path, "01_hangs", "n = 1", "while True: pass")
    (result,) = run_notebooks([path], new_run(tmp_path / "runs"), {}, timeout=2)
    assert result.error is not None and "2 s" in result.error and "cell 1" in result.error


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
