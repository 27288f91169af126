"""The README's commands and code are run as they stand, with a photograph called photo.jpg."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from webserver import web_server

from melodify_lib.image import open_image
from melodify_lib.samples import sample_picture

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)


def test_python_and_shell_examples_run(tmp_path: Path) -> None:
    open_image(sample_picture("coffee")).save(tmp_path / "photo.jpg")
    bin_folder = Path(sys.executable).parent
    for language, block in BLOCKS:
        if language == "python":
            subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        elif "melodify compose" in block:
            script = block.replace("source .venv/bin/activate", f'export PATH="{bin_folder}:$PATH"')
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL
            )
    assert (tmp_path / "song" / "track.wav").read_bytes() == (tmp_path / "again" / "track.wav").read_bytes()
    assert (tmp_path / "storm" / "track.wav").exists()


def test_the_program_in_the_web_applications_documentation_gets_its_song(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/web.md").read_text(encoding="utf-8"), re.DOTALL)
    open_image(sample_picture("coffee")).save(tmp_path / "photo.jpg")
    with web_server(tmp_path / "server") as server:
        program = program.replace("http://127.0.0.1:8000", server.url) + "print(len(song))\n"
        said = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(said.stdout) > 50_000


@pytest.mark.parametrize("target", ["run", "test", "help", "lab", "web", "lint", "audit", "docs", "bench", "clean"])
def test_targets_that_the_readme_and_the_issue_name_exist(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)
