"""Pictures a minute through the batch pipeline on this machine, and what a million of them would take.

    python bench/batch.py [--count 16] [--seconds 20] [--plan 1000000] [--within 24]

The plan multiplies what was measured here by list prices that you can change (melodify_lib/cloud/machines.yaml,
prices.yaml). It takes a virtual processor there for a processor here; measure on the machine that you rent.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

from melodify_lib.cloud.prices import of_songs
from melodify_lib.cloud.resources import MACHINES
from melodify_lib.image import open_image
from melodify_lib.samples import SAMPLES, sample_picture
from melodify_lib.settings import Settings
from melodify_lib.tables import read_yaml
from pipelines.batch import run_batch

MACHINE, PROCESSORS = "n2-standard-4", 4
MUSICGEN = 38.6 * 5 / 2
"""Seconds of audio a minute and processor: bench/endpoint.py: 38.6 songs of 5 s a minute on two, 16 callers, int8."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16, help="pictures that are made here")
    parser.add_argument("--seconds", type=float, default=20, help="length of a song")
    parser.add_argument("--plan", type=int, default=1_000_000, help="pictures to plan for")
    parser.add_argument("--within", type=float, default=24, help="hours in which they are wanted")
    wanted = parser.parse_args()
    rate = measure(wanted.count, wanted.seconds)
    processors = len(os.sched_getaffinity(0))
    print(f"\n{rate:.1f} pictures a minute on {processors} processors, songs of {wanted.seconds:g} s by the arranger\n")
    plan(rate / processors, wanted.seconds, wanted.plan, wanted.within)


def measure(count: int, seconds: float) -> float:
    """Pictures a minute, set-up of the pipeline and its processes included."""
    with tempfile.TemporaryDirectory() as folder:
        names = list(SAMPLES)
        for number in range(count):
            image = open_image(sample_picture(names[number % len(names)]))
            image.rotate(90 * (number // len(names)), expand=True).save(Path(folder, f"{number:03}.png"))
        settings = Settings(store=Path(folder, "store"))
        start = time.perf_counter()
        results = run_batch(folder, settings, seconds=seconds, parallel=2, per_task=math.ceil(count / 2))
        assert [one.state for one in results] == ["made"] * count, results
        return 60 * count / (time.perf_counter() - start)


def plan(arranger: float, seconds: float, pictures: int, within: float) -> None:
    """Print the table; `arranger` in pictures a minute and processor."""
    table = read_yaml(MACHINES)
    hourly = table["machines"][MACHINE]
    asked = sum(of_songs(Settings(captioner="openai", describer="gemini"), pictures).values())
    clips = sum(of_songs(Settings(musician="lyria"), pictures).values())
    print(f"{pictures:,} pictures, songs of {seconds:g} s, within {within:g} h; {MACHINE} at ${hourly} an hour")
    print(f"(list price of {table['checked']}, {table['source']})\n")
    print(
        "| who plays | songs a minute and machine | machine hours | machines | machines' cost | + OpenAI and Gemini |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rate in (("arranger", arranger), ("MusicGen, int8", MUSICGEN / seconds)):
        a_minute = rate * PROCESSORS
        hours = pictures / a_minute / 60
        cost = hours * hourly
        machines = math.ceil(hours / within)
        print(f"| {name} | {a_minute:.0f} | {hours:,.0f} | {machines} | ${cost:,.0f} | ${cost + asked:,.0f} |")
    print(f"| Lyria | | | | ${clips:,.0f} for clips | ${clips + asked:,.0f} |")


if __name__ == "__main__":
    main()
