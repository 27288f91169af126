"""The endpoint under load: `python bench/endpoint.py --checkpoint FOLDER [--seconds 10] [--json FILE]`.

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
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from compose import processor

from melodify_lib import Settings
from serving.process import Running, running

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
        with tempfile.TemporaryDirectory() as store, running(_settings(options.checkpoint, at_once, store)) as server:
            _song(server, options.seconds, 0)  # what is done once: caches grow, files are read
            levels += [_load(server, at_once, callers, options.each, options.seconds) for callers in CALLERS]
    machine = f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}"
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


def _settings(checkpoint: Path | None, at_once: int, store: str) -> Settings:
    musician = (
        {"musician": "musicgen", "checkpoint": str(checkpoint.resolve())} if checkpoint else {"musician": "arranger"}
    )
    return Settings.load(**musician, songs=at_once, store=store, deadline=3600)


def _load(server: Running, at_once: int, callers: int, each: int, seconds: float) -> Level:
    def call(caller: int) -> list[float]:
        # Another seed each time: a song that was made already would be found in the store.
        return [_song(server, seconds, callers * 10_000 + caller * 100 + number) for number in range(each)]

    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        latencies = [latency for one in pool.map(call, range(callers)) for latency in one]
    wall = time.perf_counter() - started
    songs = len(latencies)
    p95 = statistics.quantiles(latencies, n=20, method="inclusive")[-1] if songs > 1 else latencies[0]
    print(f"{at_once} at once, {callers} callers: {songs} songs in {wall:.1f} s", file=sys.stderr)
    return Level(at_once, callers, songs, 60 * songs / wall, songs * seconds / wall, statistics.median(latencies), p95)


def _song(server: Running, seconds: float, seed: int) -> float:
    """Seconds from request to answer."""
    started = time.perf_counter()
    status, answer = server.predict({"prompt": PROMPT, "seconds": seconds, "seed": seed})
    if status != 200:
        raise SystemExit(f"{status}: {answer}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
