"""The front doors of the README, tried as by somebody who has just cloned it, and timed: `python bench/front_doors.py`.

This checkout, as committed, is cloned into a temporary folder, with an empty home: no cache, no configuration, nothing
installed. Then come the README's own commands: `make lab` until JupyterLab has the notebooks' kernel; `make run`, which
is papermill over all notebooks; and the lines that install the library and make a song, in an environment of their own.
It takes a quarter of an hour, and some gigabytes from the package index.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compose import processor

from melodify_lib.image import open_image
from melodify_lib.samples import sample_picture

ROOT = Path(__file__).parents[1]
KEPT = re.compile("PATH|LANG|TMPDIR|PIP_.*|.*_CERT.*|.*_proxy|MAKE", re.IGNORECASE)
"""What is passed on of this environment: where packages come from, and nothing of who works here."""
PORT = 8899
PATIENCE_S = 1800


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    load = os.getloadavg()[1]
    with tempfile.TemporaryDirectory() as folder:
        home, clone, own = (Path(folder) / name for name in ("home", "melodify", "own"))
        (home / ".jupyter").mkdir(parents=True)
        if os.geteuid() == 0:  # which JupyterLab refuses
            allowed = {"ServerApp": {"allow_root": True}}
            (home / ".jupyter/jupyter_server_config.json").write_text(json.dumps(allowed), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
        environment |= {"HOME": str(home), "JUPYTER_PORT": str(PORT)}
        started = time.perf_counter()

        def run(*command: object, at: Path = clone) -> float:
            since = time.perf_counter()
            subprocess.run([str(part) for part in command], cwd=at, env=environment, stdout=sys.stderr, check=True)
            return time.perf_counter() - since

        rows = [("`git clone`", run("git", "clone", "--quiet", ROOT, clone, at=home))]
        readme = (clone / "README.md").read_text("utf-8")
        assert all(f"make {target}" in readme for target in ("lab", "run"))
        rows.append(("set-up, by whichever comes first", run("make", ".venv/.ready")))

        since = time.perf_counter()
        with lab(clone, environment) as kernels:
            assert "python3" in kernels
            rows.append(("exploring: `make lab`, until JupyterLab is there", time.perf_counter() - since))

        taken = run("make", "run")
        results = [json.loads(path.read_text("utf-8")) for path in sorted((clone / "runs/latest").glob("0*.json"))]
        assert all(result["passed"] for result in results) and (clone / "runs/latest/report.html").exists()
        rows.append((f"papermill: `make run`, all {len(results)} notebooks", taken))

        install, program = re.findall(r"```sh\n(pip install .*?)```\s+```python\n(.*?)```", readme, re.DOTALL)[0]
        run(sys.executable, "-m", "venv", own)
        environment["PATH"] = f"{own / 'bin'}:{environment['PATH']}"
        rows.append(("importing: the README's `pip install`, in an environment of its own", run("sh", "-ec", install)))
        open_image(sample_picture("coffee")).save(home / "photo.jpg")
        rows.append(("importing: its program, until the song is there", run("python", "-c", program, at=home)))
        assert (home / "song/track.wav").stat().st_size > 1e6
        rows.append(("all of it", time.perf_counter() - started))
        machine = f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}"
        print(f"{machine}; one run, a load of {load:.1f} before it\n")
        print("| door | seconds |\n| --- | --- |")
        for what, seconds in rows:
            print(f"| {what} | {seconds:.0f} |")


@contextmanager
def lab(clone: Path, environment: dict[str, str]) -> Iterator[dict[str, object]]:
    """JupyterLab as `make lab` starts it; gives its kernels."""
    environment = environment | {"JUPYTER_TOKEN": "tried", "BROWSER": "true"}
    process = subprocess.Popen(["make", "lab"], cwd=clone, env=environment, stdout=sys.stderr, start_new_session=True)
    try:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/api/kernelspecs", headers={"Authorization": "token tried"}
        )
        ends = time.monotonic() + PATIENCE_S
        kernels = None
        while kernels is None and process.poll() is None and time.monotonic() < ends:
            with suppress(OSError), urllib.request.urlopen(asked, timeout=10) as answer:
                kernels = json.load(answer)["kernelspecs"]
            time.sleep(0.1)
        if kernels is None:
            raise SystemExit("make lab: JupyterLab did not come")
        yield kernels
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    main()
