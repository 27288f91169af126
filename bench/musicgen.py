"""MusicGen, ours against transformers and OpenVINO: `python bench/musicgen.py [--json FILE] [--quick]`.

Without `--checkpoint`, on random weights of musicgen-small's exact architecture: speed and memory are the same.
Each candidate runs in a process of its own; in each round each has its turn, and medians are taken over the
rounds. Absolute times are this machine's: compare within one run. Takes half an hour, 12 GB of disk and 16 GB of
memory; where there is less free, some candidates are measured on fewer songs at once.

    musicgen.py             what is measured, the tables, the bars
    musicgen_candidates.py  the engines, each behind the same few methods
    musicgen_openvino.py    the peer's model
    processes.py            processes, samples, interference
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil
from musicgen_candidates import (
    CANDIDATES,
    CODEBOOKS,
    FRAME_RATE,
    OTHER_PROMPT,
    PLAYERS,
    Folders,
    Maker,
    Memory,
    link,
    processors,
    prompt,
    read_a_step,
)
from processes import Sample, Spread, Worker, WorkerError, clean

Figures = dict[str, Any]
SONGS = (1, 4, 8, 16)
WHOLE = (("transformers", 1), ("float16", 1), ("int8", 1), ("int8", 4), ("int8", 8))
"""Who makes whole songs, and how many at once."""
PARTS = ("transformers", "float32", "int8")
"""Whose T5 and EnCodec are measured apart."""
EXACT = ("transformers", "onnxruntime", "float16", "int8")
"""Whose logits are compared with those of ours in float32."""
OTHERS = (8, 16)
SPARE = 3e9
"""Bytes of memory that are left to the rest of the machine."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    step_seconds: float
    """Of steps in a sample."""
    seconds: float
    """Of a whole song."""
    whole_rounds: int
    exact_steps: int
    wait: float
    """At most, in seconds, for others to leave the processors alone before a sample."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="of this checkpoint, as transformers writes it"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds of little: to see that it runs")
    options = parser.parse_args()
    plan = Plan(options.rounds, 0.6, 10.0, 3, 64, 15.0)
    if options.quick:
        plan = Plan(2, 0.3, 2.0, 1, 16, 1.0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or it would leave 6 GB in the temporary folder
    with tempfile.TemporaryDirectory(prefix="bench-musicgen-") as folder:
        figures = measure(Folders.under(Path(folder)), options.checkpoint, plan)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    report(figures)


# Measuring


def measure(folders: Folders, checkpoint: Path | None, plan: Plan) -> Figures:
    """All figures, as ``--json`` writes them: seconds, MB, milliseconds a step."""
    figures: Figures = {"machine": machine(), "plan": asdict(plan), "checkpoint": str(checkpoint or "random weights")}
    samples: list[Sample] = []
    folders.checkpoint.mkdir()
    if checkpoint is None:
        say("writing random weights")
        make(folders, "checkpoint")
    else:
        link(checkpoint, folders.checkpoint)
    say("preparing the checkpoint")
    figures["prepare"] = make(folders, "prepared")
    say("writing the decoder for ONNX Runtime in float32")
    make(folders, "float32")
    names = list(CANDIDATES)
    say("writing the decoder for OpenVINO")
    try:
        make(folders, "openvino")
    except WorkerError as error:
        if "ModuleNotFoundError" not in str(error):
            raise
        names = [name for name in names if not name.startswith("openvino")]
        figures["left_out"] = "OpenVINO is not measured: pip install openvino nncf"
        say(figures["left_out"])
    with ExitStack() as stack:
        memory = stack.enter_context(Worker(Memory, folders))
        workers = {name: stack.enter_context(Worker(CANDIDATES[name].make, folders)) for name in names}
        figures["apart"] = apart(workers, plan, samples)
        say("exactness")
        figures["exactness"] = exactness(workers, folders, plan)
        figures["company"] = {
            name: {others: workers[name].call("company", others, 12) for others in OTHERS}
            for name in ("float16", "int8")
        }
        figures |= steps(workers, memory, folders, plan, samples)
    figures["songs"] = whole_songs(folders, plan, samples)
    figures["interference"] = mean(sample.interference for sample in samples)
    return figures


def make(folders: Folders, what: str) -> dict[str, float]:
    """Have a fresh process make something: its seconds, and the most memory in MB that it took."""
    with Worker(Maker, folders) as worker:
        sample = worker.sample(what, wait=0)
        return {"seconds": sample.seconds, "peak": worker.peak_memory(), "interference": sample.interference}


def apart(workers: dict[str, Worker], plan: Plan, samples: list[Sample]) -> Figures:
    """Seconds of T5 over a prompt, and of EnCodec's decoder over a song."""
    parts: dict[str, tuple[str, tuple[int, ...]]] = {
        "T5": ("text", ()),
        "EnCodec": ("codec", (round(plan.seconds * FRAME_RATE),)),
    }
    taken: dict[tuple[str, str], list[Sample]] = {(part, name): [] for part in parts for name in PARTS}
    for part, name in taken:
        method, arguments = parts[part]
        workers[name].call(method, *arguments)  # once to warm up
    for number in range(plan.rounds):
        say(f"T5 and EnCodec, round {number + 1} of {plan.rounds}")
        for (part, name), all_ in taken.items():
            method, arguments = parts[part]
            all_.append(workers[name].sample(method, *arguments, wait=plan.wait))
    samples += (sample for all_ in taken.values() for sample in all_)
    return {part: {name: Spread.of(taken[part, name]).to_json() for name in PARTS} for part in parts}


def steps(
    workers: dict[str, Worker], memory: Worker, folders: Folders, plan: Plan, samples: list[Sample]
) -> dict[str, Figures]:
    """Milliseconds a step of each candidate for each number of songs, the bandwidth, and the floor that it makes."""
    say("filling the caches")
    held = {name: hold(workers[name], folders, name) for name in reversed(workers)}
    turns = [(name, songs) for songs in SONGS for name in workers if songs <= held[name]]
    taken: dict[tuple[str, int], list[Sample]] = {turn: [] for turn in turns}
    reads: list[Sample] = []
    for number in range(plan.rounds):
        say(f"steps, round {number + 1} of {plan.rounds}")
        for name, songs in turns:
            if name == next(iter(workers)):
                reads.append(memory.sample("read", wait=plan.wait))
            taken[name, songs].append(workers[name].sample("steps", songs, plan.step_seconds, wait=plan.wait))
    samples += (sample for all_ in (*taken.values(), reads) for sample in all_)
    bandwidth = Spread.of(reads, lambda sample: sample.result)
    figures: dict[str, Figures] = {"steps": {name: {} for name in workers}, "floor": {name: {} for name in workers}}
    for (name, songs), all_ in taken.items():
        figures["steps"][name][str(songs)] = Spread.of(all_, lambda sample: sample.result).to_json()
        read = read_a_step(folders.checkpoint, name, songs)
        figures["floor"][name][str(songs)] = read / bandwidth.median / 1e6
    return figures | {"bandwidth": bandwidth.to_json()}


def hold(worker: Worker, folders: Folders, name: str) -> int:
    """Have a candidate hold as many songs as it should and memory has room for; how many."""
    for songs in reversed(SONGS):
        cached = read_a_step(folders.checkpoint, name, songs) - read_a_step(folders.checkpoint, name, 0)
        held = cached / CANDIDATES[name].cache_bytes * 4  # some hand them over as floats
        if songs <= CANDIDATES[name].most_songs and psutil.virtual_memory().available > 2 * held + SPARE:
            worker.call("hold", songs)
            worker.call("steps", songs, 0.0)  # takes the memory now, so that the next one sees what is left
            return songs
    return 0


def exactness(workers: dict[str, Worker], folders: Folders, plan: Plan) -> Figures:
    """Of logits after given codes, against ours in float32: relative rms, and how often the likeliest is the same."""
    import numpy as np

    random = np.random.default_rng(2).integers(0, 2048, (plan.exact_steps, 2, CODEBOOKS))
    prompts = [prompt(folders.checkpoint), OTHER_PROMPT]

    def logits(name: str) -> tuple[Any, Any]:
        both = workers[name].call("forced", prompts, random)
        with_prompt, without = both[:, :, 0], both[:, :, 1]
        return both, (without + 3 * (with_prompt - without)).argmax(-1)

    exact, likeliest = logits("float32")
    figures: Figures = {}
    for name in EXACT:
        other, choices = logits(name)
        distance = np.sqrt(np.square(other - exact).mean() / np.square(exact - exact.mean()).mean())
        figures[name] = {"relative_rms": float(distance), "top_1": float((choices == likeliest).mean())}
    return figures


def whole_songs(folders: Folders, plan: Plan, samples: list[Sample]) -> Figures:
    """Songs end to end, each time in a fresh process: seconds, seconds to the first sound, loading, peak memory."""
    runs: dict[tuple[str, int], list[Sample]] = {turn: [] for turn in WHOLE}
    for number in range(plan.whole_rounds):
        for (name, songs), taken in runs.items():
            if name == "transformers" and any(sample.is_clean for sample in taken):
                continue  # a minute and a half each: once will do
            say(f"whole songs, round {number + 1} of {plan.whole_rounds}: {songs} by {CANDIDATES[name].title}")
            with Worker(PLAYERS[name], folders) as worker:
                loading = worker.call("loading")
                sample = worker.sample("play", songs, plan.seconds, wait=4 * plan.wait)
                result = {**loading, **sample.result, "peak": worker.peak_memory()}
            taken.append(replace(sample, result=result))
    samples += (sample for taken in runs.values() for sample in taken)
    figures: Figures = {name: {} for name, _ in WHOLE}
    for (name, songs), taken in runs.items():
        kept = clean(taken)
        middle = {key: median(sample.result[key] for sample in kept) for key in kept[0].result}
        whole = Spread.of(taken, lambda sample: sample.result["seconds"])
        figures[name][str(songs)] = {
            **middle,
            **whole.to_json(),
            "peak": max(sample.result["peak"] for sample in taken),
            "audio_a_second": songs * plan.seconds / middle["seconds"],
        }
    return figures


def machine() -> dict[str, Any]:
    from compose import processor

    packages = ("torch", "transformers", "onnxruntime", "openvino", "nncf", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"processor": processor(), "processors": processors(), "python": platform.python_version(), **versions}


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# Bars


@dataclass(frozen=True)
class Bar:
    """What a change must not fall behind, as a figure of one run."""

    what: str
    figure: Callable[[Figures], float]
    limit: float
    text: str
    """How figure and limit are written."""
    at_most: bool = False

    def row(self, figures: Figures) -> str:
        try:
            figure = self.figure(figures)
        except KeyError:
            return f"| {self.what} | not measured | {self._said()} | – |"
        is_met = figure <= self.limit if self.at_most else figure >= self.limit
        return f"| {self.what} | {self.text.format(figure)} | {self._said()} | {'met' if is_met else '**missed**'} |"

    def _said(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.text.format(self.limit)}"


def _step(figures: Figures, name: str, songs: int = 1) -> float:
    return figures["steps"][name][str(songs)]["median"]


def _faster(name: str, than: str) -> Callable[[Figures], float]:
    """How often one song's step goes into another's."""
    return lambda figures: _step(figures, than) / _step(figures, name)


def _audio(songs: int) -> Callable[[Figures], float]:
    """Audio of the `int8` decoder against transformers' one by one."""
    return lambda figures: songs * _step(figures, "transformers") / _step(figures, "int8", songs)


def _whole(songs: int, key: str) -> Callable[[Figures], float]:
    return lambda figures: figures["songs"]["int8"][str(songs)][key]


def _whole_faster(songs: int) -> Callable[[Figures], float]:
    whole = _whole(songs, "audio_a_second")
    return lambda figures: whole(figures) / figures["songs"]["transformers"]["1"]["audio_a_second"]


BARS = (
    Bar("`int8`, one song, step: against transformers float32", _faster("int8", "transformers"), 11.5, "{:.1f} ×"),
    Bar(
        "the same against OpenVINO int8, the faster of the two",
        lambda figures: min(_faster("int8", peer)(figures) for peer in ("openvino", "openvino_tuned")),
        1.3,
        "{:.2f} ×",
    ),
    Bar(
        "the same against its floor",
        lambda figures: _step(figures, "int8") / figures["floor"]["int8"]["1"],
        1.3,
        "{:.2f} ×",
        at_most=True,
    ),
    Bar("`int8`, one song, end to end: against transformers", _whole_faster(1), 9, "{:.1f} ×"),
    Bar(
        "the goal: its RTF, where memory reads 28 GB/s",
        lambda figures: 1 / _whole(1, "audio_a_second")(figures),
        1.0,
        "{:.2f}",
        at_most=True,
    ),
    Bar("`float16`, one song, step: against transformers float32", _faster("float16", "transformers"), 6.3, "{:.1f} ×"),
    Bar(
        "`float16`, relative rms of logits",
        lambda figures: figures["exactness"]["float16"]["relative_rms"],
        1e-3,
        "{:.1e}",
        at_most=True,
    ),
    Bar("`int8`, 4 songs at once, end to end: audio against transformers one by one", _whole_faster(4), 17, "{:.1f} ×"),
    Bar("`int8`, 8 songs at once, decoder: audio against transformers one by one", _audio(8), 24, "{:.1f} ×"),
    Bar(
        "`int8`, a song among 8 and among 16 others: furthest logit from its logits alone",
        lambda figures: max(figures["company"]["int8"].values()),
        0,
        "{:g}",
        at_most=True,
    ),
    Bar(
        "`int8`, 16 songs at once, decoder: audio against 8 at once",
        lambda figures: 2 * _step(figures, "int8", 8) / _step(figures, "int8", 16),
        1.0,
        "{:.2f} ×",
    ),
    Bar("sampling, delay pattern, guidance: share of a step", _whole(1, "rest_of_step"), 0.05, "{:.1%}", at_most=True),
    Bar("loading a prepared `int8` artifact, warm, after imports", _whole(1, "load"), 2, "{:.2f} s", at_most=True),
    Bar("peak memory of one song, `int8`", _whole(1, "peak"), 1000, "{:.0f} MB", at_most=True),
    Bar("peak memory of 8 songs, `int8`", _whole(8, "peak"), 1500, "{:.0f} MB", at_most=True),
    Bar("preparing it", lambda figures: figures["prepare"]["seconds"], 120, "{:.0f} s", at_most=True),
    Bar("peak memory of preparing it", lambda figures: figures["prepare"]["peak"], 6000, "{:.0f} MB", at_most=True),
)
NOTE = (
    "The ratios against transformers have its own weak float32 matrix product on some processors in them: "
    "our graph in float32 under ONNX Runtime is {:.1f} × transformers here."
)


# Tables


def report(figures: Figures) -> None:
    """Print all tables."""
    print(f"{', '.join(f'{key} {value}' for key, value in figures['machine'].items())}")
    print(f"{figures['checkpoint']}; {json.dumps(figures['plan'])}")
    print(f"others used {figures['interference']:.2f} processors on average; disturbed samples are left out")
    print("! no sample was quiet: not to be trusted")
    if "left_out" in figures:
        print(figures["left_out"])
    for table in (step_table, audio_table, song_table, apart_table, exact_table, bar_table):
        print()
        print("\n".join(table(figures)))
    print()
    print(NOTE.format(_faster("onnxruntime", "transformers")(figures)))


def step_table(figures: Figures) -> Iterator[str]:
    yield header(
        "ms a step at guidance 3: median (lowest–highest)", *(f"{songs} at once" for songs in SONGS), "floor of one"
    )
    for name, row in figures["steps"].items():
        cells = [spread(row.get(str(songs)), 1) for songs in SONGS]
        yield line(CANDIDATES[name].title, *cells, f"{figures['floor'][name]['1']:.1f}")
    yield line("memory reads, GB/s", spread(figures["bandwidth"], 0), *[""] * len(SONGS))


def audio_table(figures: Figures) -> Iterator[str]:
    yield header("decoder alone: seconds of audio a second", *(f"{songs} at once" for songs in SONGS), "one song ×")
    for name, row in figures["steps"].items():
        cells = [
            f"{songs * 1e3 / FRAME_RATE / row[str(songs)]['median']:.2f}" if str(songs) in row else "–"
            for songs in SONGS
        ]
        yield line(CANDIDATES[name].title, *cells, f"{_faster(name, 'transformers')(figures):.1f}")


def song_table(figures: Figures) -> Iterator[str]:
    seconds = figures["plan"]["seconds"]
    columns = ("RTF", "first sound", "T5, decoder, EnCodec, rest", "peak memory", "imports", "load", "others used")
    yield header(f"whole songs of {seconds:g} s", "seconds (lowest–highest)", *columns)
    for name, rows in figures["songs"].items():
        for songs, row in rows.items():
            parts = ", ".join(f"{row[part]:.2f}" for part in ("text", "decoder", "codec", "rest") if part in row)
            yield line(
                f"{CANDIDATES[name].title}, {songs} at once",
                spread(row, 2),
                f"{1 / row['audio_a_second']:.2f}",
                f"{row['first_audio']:.2f} s",
                f"{parts} s" if parts else "",
                f"{row['peak']:.0f} MB",
                f"{row['imports']:.1f} s",
                f"{row['load']:.2f} s",
                f"{row['interference']:.2f}",
            )


def apart_table(figures: Figures) -> Iterator[str]:
    yield header("apart, ms", *(CANDIDATES[name].title for name in PARTS))
    for part, row in figures["apart"].items():
        what = f" of {figures['plan']['seconds']:g} s" if part == "EnCodec" else ", a prompt"
        times = ("median", "lowest", "highest")
        thousand = (row[name] | {key: row[name][key] * 1e3 for key in times} for name in PARTS)
        yield line(f"{part}{what}", *(spread(figures_, 0) for figures_ in thousand))


def exact_table(figures: Figures) -> Iterator[str]:
    steps_ = figures["plan"]["exact_steps"]
    yield header(
        f"logits against ours in float32, {steps_} steps of 2 songs",
        "relative rms",
        "same likeliest after guidance",
        *(f"furthest from alone, among {others}" for others in OTHERS),
    )
    for name, row in figures["exactness"].items():
        company = figures["company"].get(name, {})
        cells = (f"{company[others]:g}" if others in company else "" for others in OTHERS)
        yield line(CANDIDATES[name].title, f"{row['relative_rms']:.1e}", f"{row['top_1']:.3f}", *cells)


def bar_table(figures: Figures) -> Iterator[str]:
    yield header("what", "measured", "bar", "")
    for bar in BARS:
        yield bar.row(figures)


def header(*cells: str) -> str:
    return f"{line(*cells)}\n{line(*['---'] * len(cells))}"


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def spread(figures: dict[str, float] | None, digits: int) -> str:
    if figures is None:
        return "–"
    middle, lowest, highest = (f"{figures[key]:.{digits}f}" for key in ("median", "lowest", "highest"))
    mark = "!" if figures["disturbed"] == figures["samples"] else ""
    return f"{middle}{mark} ({lowest}–{highest})"


if __name__ == "__main__":
    main()
