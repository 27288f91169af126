"""Pictures a minute through a task of the batch pipeline on this machine, and what a million of them would take.

    python bench/batch.py [--count 16] [--seconds 20] [--plan 1000000] [--within 24]

On Vertex AI a task is a machine, whose one process makes a song after the other. The plan takes what a task makes here
for what it makes there, and list prices that you can change (melodify_lib/cloud/machines.yaml, prices.yaml); measure on
the machine that you rent.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

from melodify_lib.cloud.prices import price
from melodify_lib.cloud.resources import MACHINES
from melodify_lib.image import open_image
from melodify_lib.samples import SAMPLES, sample_picture
from melodify_lib.settings import Settings
from melodify_lib.tables import read_yaml
from pipelines.batch import run_batch

MACHINE, PROCESSORS = "n2-standard-4", 4
MUSICGEN = 14.4 * 5 / 2
"""Seconds of audio a minute and processor: bench/endpoint.py: 14.4 songs of 5 s a minute on two, one caller, int8."""
CAPTION_TOKENS, DESCRIPTION_TOKENS = (715, 150), (300, 250)
"""Asked and answered, estimated: 512 × 512 pixels by patches with what is said around them; a caption."""
LYRIA_CLIP = 0.06
"""Dollars, second-hand."""
MODELS_S, LYRIA_S = 4.0, 20.0
"""Seconds that a song waits for OpenAI and Gemini, and for its clip; guesses. The machine is paid for meanwhile."""
STARTING_S = 180.0
"""Of a task's machine; a guess."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16, help="pictures that are made here")
    parser.add_argument("--seconds", type=float, default=20, help="length of a song")
    parser.add_argument("--plan", type=int, default=1_000_000, help="pictures to plan for")
    parser.add_argument("--within", type=float, default=24, help="hours in which they are wanted")
    wanted = parser.parse_args()
    rate = measure(wanted.count, wanted.seconds)
    processors = len(os.sched_getaffinity(0))
    print(
        f"\n{rate:.1f} pictures a minute in one task on {processors} processors, {wanted.seconds:g} s by the arranger\n"
    )
    plan(rate, wanted.seconds, wanted.plan, wanted.within)


def measure(count: int, seconds: float) -> float:
    """Pictures a minute, set-up of the pipeline and its processes included."""
    with tempfile.TemporaryDirectory() as folder:
        names = list(SAMPLES)
        for number in range(count):
            image = open_image(sample_picture(names[number % len(names)]))
            image.rotate(90 * (number // len(names)), expand=True).save(Path(folder, f"{number:03}.png"))
        settings = Settings(store=Path(folder, "store"))
        start = time.perf_counter()
        results = run_batch(folder, settings, seconds=seconds, parallel=1, per_task=count)
        assert [one.state for one in results] == ["made"] * count, results
        return 60 * count / (time.perf_counter() - start)


def plan(arranger: float, seconds: float, pictures: int, within: float) -> None:
    """Print the table; `arranger` in pictures a minute and task. A share is an hour's work."""
    table, settings = read_yaml(MACHINES), Settings()
    hourly = table["machines"][MACHINE]
    models = price(settings.openai_model, settings).of(*CAPTION_TOKENS)
    models += price(settings.gemini_model, settings).of(*DESCRIPTION_TOKENS)
    playing = {"arranger": 60 / arranger, "MusicGen, int8": 60 * seconds / MUSICGEN / PROCESSORS}
    rows = [
        *((f"{name}; local models", one, 0.0) for name, one in playing.items()),
        *((f"{name}; OpenAI and Gemini", one + MODELS_S, models) for name, one in playing.items()),
        ("Lyria; OpenAI and Gemini", LYRIA_S + MODELS_S, models + LYRIA_CLIP),
    ]
    print(f"{pictures:,} pictures, songs of {seconds:g} s, within {within:g} h; {MACHINE} at ${hourly} an hour")
    print(f"(list price of {table['checked']}, {table['source']})\n")
    print("| who plays; captions, describes | songs a minute | machine hours | machines | models | in all | options |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, a_song, paid in rows:
        per_task = max(round(3600 / a_song), 1)
        hours = (pictures * a_song + math.ceil(pictures / per_task) * STARTING_S) / 3600
        machines = math.ceil(hours / within)
        print(
            f"| {name} | {60 / a_song:.1f} | {hours:,.0f} | {machines} | ${pictures * paid:,.0f} "
            f"| ${hours * hourly + pictures * paid:,.0f} | `--per-task {per_task} --parallel {machines}` |"
        )


if __name__ == "__main__":
    main()
