"""`make lab` as a person meets it: JupyterLab starts, has the notebooks' kernel, and notebook 01 plays a picture of
one's own.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import requests
from conftest import ROOT
from PIL import Image
from processes import Running, environment, free_port

pytest.importorskip("playwright", reason="needs the extra dev")
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
MAKE_LAB = ["make", "--no-print-directory", "-n", "-o", ".venv/.ready", "lab"]  # a make within make says where it is


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server by the command of the Makefile, for somebody who never had one, on copies of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    said = subprocess.run(MAKE_LAB, cwd=ROOT, capture_output=True, check=True)
    _, *options = shlex.split(said.stdout.decode())
    command = [str(Path(sys.executable).with_name("jupyter")), *options]
    port = free_port()
    quiet = ["--no-browser", f"--port={port}", "--IdentityProvider.token=", "--allow-root"]
    home = {"HOME": str(folder), "JUPYTER_PREFER_ENV_PATH": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *quiet], cwd=folder, env={**environment(), **home}, stdout=log, stderr=log
        )
    running = Running(process, folder, port)

    def ready() -> bool:
        assert process.poll() is None, running.log()
        with suppress(requests.ConnectionError):
            return requests.get(f"{running.url}/api", timeout=10).ok
        return False

    try:
        running.wait_for(ready)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def test_it_has_the_kernel_that_the_notebooks_ask_for(lab: Running) -> None:
    kernels = requests.get(f"{lab.url}/api/kernelspecs", timeout=10).json()["kernelspecs"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        kernel = kernels[json.loads(path.read_text("utf-8"))["metadata"]["kernelspec"]["name"]]
        assert Path(kernel["spec"]["argv"][0]).name.startswith("python")
        there = requests.get(f"{lab.url}/api/contents/notebooks/{path.name}?content=0", timeout=10)
        assert there.json()["type"] == "notebook"


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_the_first_notebook_runs_in_it_and_plays_a_picture_of_ones_own(lab: Running) -> None:
    photo = lab.folder / "photo.png"  # 15 MB, as many a telephone's: it must get through to the kernel
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (2200, 2300, 3), np.uint8)).save(photo)
    assert photo.stat().st_size > 15e6
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1400})
        page.goto(f"{lab.url}/lab/tree/notebooks/01_quickstart.ipynb?reset")
        try_it(page, photo)
        if folder := os.environ.get("WEB_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/lab.png")
        browser.close()


def try_it(page: Page, photo: Path) -> None:
    """Run all cells, choose a picture, press Play."""
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    play = page.locator("button.jupyter-button", has_text="Play")
    expect(play).to_be_enabled(timeout=120_000)
    with page.expect_file_chooser() as chosen:
        page.locator("button.jupyter-button", has_text="Picture").click()
    chosen.value.set_files(photo)
    expect(page.get_by_text("Picture (1)")).to_be_visible(timeout=30_000)
    play.click()
    form = page.locator(".jp-OutputArea-output", has=play)
    expect(form.locator("audio")).to_be_visible(timeout=60_000)
    expect(form.locator("img")).to_be_visible()
