"""The endpoint under load: `python bench/serving.py --checkpoint FOLDER [--seconds 10] [--json FILE]`.

1, 2, 4, 8 and 16 callers, each of whom asks for its next song when it has the last, of a server that makes songs
together and of one that makes one at a time. Both are the process that the image runs, asked over HTTP, with their
store in a folder of their own. Without a checkpoint it is the arranger, a process a song.
Absolute times are this machine's; compare within one run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from compose import _processor

MELODIFY = Path(sys.executable).with_name("melodify")
CALLERS = (1, 2, 4, 8, 16)
PROMPT = "A calm piano piece. bpm: 90. key: D minor. genre: jazz. moods: calm, warm. instrument: piano"


@dataclass(frozen=True)
class Level:
    """What so many callers saw; latencies in seconds."""

    at_once: int
    callers: int
    songs: int
    songs_a_minute: float
    audio_seconds_a_second: float
    p50: float
    p95: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="MusicGen's; the arranger plays if not given")
    parser.add_argument("--seconds", type=float, default=10, help="length of each song")
    parser.add_argument("--each", type=int, default=2, help="songs that each caller asks for")
    parser.add_argument("--at-once", type=int, default=16, help="songs that the first server makes at once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    levels: list[Level] = []
    for at_once in (options.at_once, 1):
        with _server(options.checkpoint, at_once) as url:
            _song(url, options.seconds, 0)  # what is done once: caches grow, files are read
            levels += [_load(url, at_once, callers, options.each, options.seconds) for callers in CALLERS]
    machine = f"{_processor()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    who = options.checkpoint.name if options.checkpoint else "arranger"
    print(f"{machine}; {who}, songs of {options.seconds:g} s, {options.each} a caller\n")
    print("| callers | songs a minute | p50 | p95 | one at a time | p50 | p95 | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for some, one in zip(levels[: len(CALLERS)], levels[len(CALLERS) :], strict=True):
        print(
            f"| {some.callers} | {some.songs_a_minute:.1f} | {some.p50:.1f} s | {some.p95:.1f} s "
            f"| {one.songs_a_minute:.1f} | {one.p50:.1f} s | {one.p95:.1f} s "
            f"| {some.songs_a_minute / one.songs_a_minute:.2f} |"
        )
    if options.json:
        figures = {"machine": machine, "who": who, "seconds": options.seconds, "each": options.each}
        options.json.write_text(json.dumps({**figures, "levels": [asdict(level) for level in levels]}, indent=2) + "\n")


@contextmanager
def _server(checkpoint: Path | None, at_once: int) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    musician = {"MELODIFY_MUSICIAN": "musicgen", "MELODIFY_CHECKPOINT": str(checkpoint.resolve())} if checkpoint else {}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        environment = {
            **os.environ,
            **(musician or {"MELODIFY_MUSICIAN": "arranger"}),
            "MELODIFY_STORE": f"{folder}/store",
            "MELODIFY_SONGS": str(at_once),
            "MELODIFY_DEADLINE": "3600",
        }
        command = [MELODIFY, "serve", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while not _is_ready(port):
                if process.poll() is not None:
                    raise SystemExit(Path(folder, "log").read_text())
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/predict"
        finally:
            process.terminate()
            process.wait()


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            return bool(answer.status == 200)
    except (URLError, ConnectionError):  # not listening, or 503
        return False


def _load(url: str, at_once: int, callers: int, each: int, seconds: float) -> Level:
    def call(caller: int) -> list[float]:
        # Another seed each time: a song that was made already would be found in the store.
        return [_song(url, seconds, callers * 10_000 + caller * 100 + number) for number in range(each)]

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        latencies = [latency for one in pool.map(call, range(callers)) for latency in one]
    wall = time.perf_counter() - started
    songs = len(latencies)
    p95 = statistics.quantiles(latencies, n=20, method="inclusive")[-1] if songs > 1 else latencies[0]
    print(f"{at_once} at once, {callers} callers: {songs} songs in {wall:.1f} s", file=sys.stderr)
    return Level(at_once, callers, songs, 60 * songs / wall, songs * seconds / wall, statistics.median(latencies), p95)


def _song(url: str, seconds: float, seed: int) -> float:
    """Seconds from request to answer."""
    body = {"instances": [{"prompt": PROMPT, "seconds": seconds, "seed": seed}]}
    started = time.perf_counter()
    with urlopen(url, json.dumps(body).encode(), timeout=3600) as answer:
        json.load(answer)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
