"""Time and memory of the main job, as a table: `python bench/compose.py [--rounds 5]`.

Whole processes are timed from outside, peak memory is the operating system's own figure. Absolute
times are this machine's; compare within one run.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from melodify_lib import GENRES, Caption, Composer
from melodify_lib.samples import sample_picture

SCENE = "A street corner in the late afternoon, people passing by."
MELODIFY = Path(sys.executable).with_name("melodify")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    picture = sample_picture("coffee")
    with tempfile.TemporaryDirectory() as folder:
        compose = [MELODIFY, "compose", picture, "--seconds", "30", "--out", folder]
        process, memory = zip(*(_process(compose) for _ in range(rounds)), strict=True)
        helps, _ = zip(*(_process([MELODIFY, "--help"]) for _ in range(rounds)), strict=True)
        imports, _ = zip(*(_process([sys.executable, "-c", "import melodify_lib"]) for _ in range(rounds)), strict=True)
        description = Path(folder) / "description.json"
        described = [Composer().describer.describe(Caption.from_text(SCENE), genre).description for genre in GENRES]
        description.write_text(described[0].to_json(), encoding="utf-8")
        play = [MELODIFY, "play", description, "--seconds", "30", "--out", folder]
        _, playing = zip(*(_process(play) for _ in range(rounds)), strict=True)
    composer = Composer()
    composer.compose(picture, seconds=30)
    warm = [_seconds(lambda seed=seed: composer.compose(picture, seconds=30, seed=seed)) for seed in range(rounds)]
    arranger = composer.musician
    played = {
        one.genre: statistics.median(_seconds(lambda one=one: arranger.play(one, 30, 1)) for _ in range(rounds))
        for one in described
    }
    slowest = max(played, key=lambda genre: played[genre])
    print(f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}; median of {rounds}\n")
    print("| what | measured | bar |\n| --- | --- | --- |")
    for what, values, bar in [
        ("`melodify compose photo.jpg --seconds 30`, whole process", process, "8 s"),
        ("`compose(…, seconds=30)`, warm", warm, "1.5 s"),
        ("`melodify --help`", helps, "0.5 s"),
        ("`import melodify_lib`", imports, "0.5 s"),
    ]:
        print(f"| {what} | {statistics.median(values):.2f} s ({min(values):.2f}–{max(values):.2f}) | {bar} |")
    each = sorted(played.values())
    print(
        f"| the arranger alone, 30 s, warm, over {len(each)} genres | {statistics.median(each):.2f} s "
        f"({each[0]:.2f}–{each[-1]:.2f}, {slowest}) | 1 s |"
    )
    print(f"| peak memory of `melodify play` | {max(playing):.0f} MB | 500 MB |")
    print(f"| peak memory of `melodify compose` | {max(memory):.0f} MB | 1000 MB |")


def _process(command: list[object]) -> tuple[float, float]:
    """Wall seconds and peak memory (MB) of a command."""
    started = time.perf_counter()
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
