"""What the documentation shows is done here as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, script

from melodify_lib.image import open_image
from melodify_lib.samples import sample_picture
from melodify_lib.settings import Settings
from web.config import Config

BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)
EXTEND = (ROOT / "docs/extend.md").read_text("utf-8")


def test_genre_captioner_musician_and_teacher_are_added_as_the_page_says(tmp_path: Path) -> None:
    without = shutil.ignore_patterns("__pycache__", "output")
    for folder in ("melodify_lib", "data/generate_jsonl"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=without)
    open_image(sample_picture("coffee")).save(tmp_path / "photo.jpg")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "melodify").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from melodify_lib.cli import main; main()" "$@"\n'
    )
    (programs / "melodify").chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}
    said = ""
    for language, title, code in BLOCK.findall(EXTEND):
        if language == "python":
            (tmp_path / title).write_text(code, encoding="utf-8")
            continue
        if "TEACHERS" in title:  # which needs the other genres' scenes alone
            shutil.copy(ROOT / "melodify_lib/genres.txt", tmp_path / "melodify_lib/genres.txt")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{title}: {done.stderr[-2000:]}"
        said += done.stdout
    assert json.loads((tmp_path / "tango/card.json").read_text("utf-8"))["description"]["genre"] == "tango"
    assert '"source":"average"' in said.replace(" ", "")
    card = json.loads((tmp_path / "droned/card.json").read_text("utf-8"))
    assert card["musician"]["name"] == "drone" and abs(card["measured"]["duration_s"] - 8) < 0.5
    lines = (tmp_path / "casual/train.jsonl").read_text("utf-8").splitlines()
    captions = [json.loads(line)["contents"][0]["parts"][0]["text"] for line in lines]
    assert captions and all(one == one.lower() and one[-1] != "." for one in captions)


@pytest.mark.parametrize("title", [title for language, title, _ in BLOCK.findall(EXTEND) if language == "python"])
def test_the_modules_of_the_page_are_as_clean_as_ours(title: str) -> None:
    (code,) = [code for _, name, code in BLOCK.findall(EXTEND) if name == title]
    ruff = shutil.which("ruff", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert ruff is not None
    for command in (["check"], ["format", "--check"]):
        checked = subprocess.run(
            [ruff, *command, "--stdin-filename", title, "-"],
            input=code,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_costs_are_what_the_command_prints() -> None:
    page = (ROOT / "docs/costs.md").read_text("utf-8")
    shown = re.search(r"<!-- costs -->\n(.*?)\n<!-- /costs -->", page, re.DOTALL)
    assert shown is not None
    (command,) = re.findall(r"```sh\npython (.*?)\n```", page)
    said = subprocess.run([sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == shown[1].strip(), "python bench/costs.py, and put it between the marks"


def test_costs_follow_the_formula_and_ones_own_prices(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import costs
    finally:
        sys.path.remove(str(ROOT / "bench"))
    (tmp_path / "rates.yaml").write_text("somebody: {processor: 30, c3-standard-8: 400}")
    rates = costs.read_rates(tmp_path / "rates.yaml")
    audio = rates[0].on("n2-standard-4")  # 30 s of audio a minute and processor
    assert costs.dollars_a_song(3.60, audio, 20) == pytest.approx(3.60 / 3600 * 10)  # 10 s of the machine
    table = {"machines": {"n2-standard-4": 36.0, "c3-standard-8": 36.0, "g2-standard-4": 72.0}}
    _, _, *rows = costs.by_machine(table, rates, 30)
    assert rows == ["| n2-standard-4 | 36.000 | 240: $150.00 |", "| c3-standard-8 | 36.000 | 800: $45.00 |"]


def test_rates_are_those_that_the_readmes_print() -> None:
    readme, serving = (ROOT / "README.md").read_text("utf-8"), (ROOT / "serving/README.md").read_text("utf-8")
    (warm,) = re.findall(r"^\| `compose\(…, seconds=30\)`, warm \| ([\d.]+) s", readme, re.MULTILINE)
    assert f"| arranger | {warm} s for a song of 30 s" in (ROOT / "docs/costs.md").read_text("utf-8")
    assert re.search(r"^\| 1 \| 14\.4 \|", serving, re.MULTILINE)
    assert re.search(r"^\| 16 \| 38\.6 \|", serving, re.MULTILINE)
    rates = yaml.safe_load((ROOT / "bench/rates.yaml").read_text("utf-8"))
    a_processor = [60 / float(warm) * 30 / 2, 14.4 * 5 / 2, 38.6 * 5 / 2]
    assert [row["processor"] for row in rates.values()] == pytest.approx(a_processor, rel=0.001)


OPERATIONS = (ROOT / "docs/operations.md").read_text("utf-8")
LEVELS = {"info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR", "critical": "CRITICAL"}


def logged() -> list[tuple[str, str]]:
    """(message, severity) of what the sources log."""
    sources = [path for name in ("melodify_lib", "pipelines", "serving", "web") for path in (ROOT / name).rglob("*.py")]
    found = []
    for path in sources:
        for level, text in re.findall(r'log\.(\w+)\(\s*"((?:[^"\\]|\\.)*)"', path.read_text("utf-8")):
            found.append((re.sub(r"%\w", "…", text), LEVELS.get(level, "")))
    return found


def test_every_line_on_the_page_is_one_that_is_logged_so() -> None:
    table = re.search(r"<!-- lines -->\n(.*?)\n<!-- /lines -->", OPERATIONS, re.DOTALL)
    assert table is not None
    for row in table[1].splitlines()[2:]:
        line, severity = (cell.strip() for cell in row.split("|")[1:3])
        text = re.findall(r"`(.*?)`", line)[0].strip("… :")
        severities = {level for message, level in logged() if message.strip("… :").startswith(text)}
        assert set(severity.split(" or ")) <= severities, f"{text}: {severities}"


def test_every_error_and_worse_is_on_the_page() -> None:
    shown = [
        text.strip("… :") for line in re.findall(r"(?m)^\| (`.*?) \|", OPERATIONS) for text in line.split("`")[1::2]
    ]
    for message, severity in logged():
        if severity in ("ERROR", "CRITICAL") and message != "…":  # a command's own sentence
            assert any(message.strip("… :").startswith(line) for line in shown), f"{message!r} is not explained"


def test_the_line_of_json_on_the_page_is_what_is_written() -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", OPERATIONS, re.DOTALL)
    code = (
        "import logging; from melodify_lib import logs; from melodify_lib.settings import Settings\n"
        "logs.configure(Settings(project='my-project-123'), as_json=True); id = '0123456789abcdef' * 2\n"
        "with logs.tracing(id):\n"
        "    logging.getLogger('melodify_lib.web').warning("
        "'its worker was lost, attempt %d', 1, extra={'labels': {'track': id}})\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = json.loads(said.stderr)
    del line["time"]
    assert line == json.loads(shown)


def commands() -> set[str]:
    """What `melodify` can be told: "compose", "dataset build" …"""
    import typer

    from melodify_lib.cli import app

    return {
        name if not getattr(command, "commands", {}) else f"{name} {sub}"
        for name, command in typer.main.get_command(app).commands.items()
        for sub in (getattr(command, "commands", None) or [""])
    }


@pytest.mark.parametrize(
    "page",
    [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "serving/README.md"],
    ids=lambda path: path.name,
)
def test_what_a_page_names_is_there(page: Path) -> None:
    """make targets, commands of melodify, and settings."""
    text = page.read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"(?m)^make ([a-z-]+)", text)):
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), f"make {target}"
    known = {f"MELODIFY_{name.upper()}" for name in Settings.model_fields}
    known |= {f"WEB_{name.upper()}" for name in Config.model_fields} | {"WEB_SCREENSHOTS", "MELODIFY_", "WEB_"}
    assert set(re.findall(r"\b(?:MELODIFY|WEB)_[A-Z_]*", text)) <= known
    known = commands() | {"failed"}  # a line of the log
    for words in re.findall(r"(?:`|^|[|&] )melodify ((?:[a-z]+(?: |\b)){1,2})", text, re.MULTILINE):
        first, _, second = words.strip().partition(" ")
        assert first in known or f"{first} {second}" in known or (not second and any(first in one for one in known)), (
            f"melodify {words}"
        )


def test_times_are_those_that_were_measured() -> None:
    """The tour has the times of one run; each notebook says its own, and the README their sum."""
    tour = (ROOT / "docs/notebooks.md").read_text("utf-8")
    seconds = 0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        (about,) = re.findall(rf"\(\.\./notebooks/{path.name}\).*\| (\d+) s \|", tour)
        seconds += int(about)
        head = "".join(json.loads(path.read_text("utf-8"))["cells"][0]["source"])
        assert re.findall(r"[Aa]bout (\d+) s\b", head)[0] == about, path.name
    assert f"together {seconds} s" in tour
    readme = (ROOT / "README.md").read_text("utf-8")
    run, set_up = re.findall(r"`make run` takes about (\d+) min after set-up, and set-up (\d+)", readme)[0]
    assert int(run) == round(seconds / 60)
    took = re.findall(r"(?m)^\| set-up, .* \| (\d+) \|$", tour)[0]
    assert int(set_up) == round(int(took) / 60)


def test_the_tour_has_every_notebook() -> None:
    tour = (ROOT / "docs/notebooks.md").read_text("utf-8")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"](../notebooks/{notebook.name})" in tour
        assert f"- **{notebook.name[:2]}** " in tour


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/notebooks.md", "docs/costs.md"])
def test_code_is_as_wide_as_the_site_at_most(page: str) -> None:
    """Beside both columns of links, at 1300 pixels (docs/assets/site.css)."""
    for block in re.findall(r"```.*?```", (ROOT / page).read_text("utf-8"), re.DOTALL):
        assert not [line for line in block.splitlines() if len(line) > 98]


def test_the_site_has_notebooks_as_they_ran_if_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    site = script("site")
    monkeypatch.setattr(site, "LATEST", tmp_path)
    target = "notebooks/01_quickstart.ipynb"
    assert site._executed(target) is None
    executed = json.loads((ROOT / target).read_text("utf-8"))
    injected = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": ["out = '.'"]}
    executed["cells"].insert(2, injected)
    ran = tmp_path / "01_quickstart.ipynb"
    ran.write_text(json.dumps(executed), "utf-8")
    ran.with_suffix(".html").touch()
    ran.with_suffix(".json").write_text('{"passed": true}', "utf-8")
    assert site._executed(target) == "notebooks/01_quickstart.html"
    assert site._executed("docs/costs.md") is None
    executed["cells"][-1]["source"] = ["as it was before"]
    ran.write_text(json.dumps(executed), "utf-8")
    assert site._executed(target) is None


def test_the_site_has_every_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in nav, f"{page.name} is not in mkdocs.yml"
