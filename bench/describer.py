"""The tuned describer: what it costs, and what else was tried in its place.

    python bench/describer.py           # both tables
    python bench/describer.py --costs   # the first alone

Genres are scored on `data/generate_jsonl/ood_captions.jsonl`: acceptable for the caption, acceptable for
its paraphrase, and the same for both. Every variant is trained on the shipped training file.
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
from dataclasses import replace
from pathlib import Path

import numpy as np
from compose import processor

from melodify_lib.dataset import Example, read
from melodify_lib.describe import heads as kernel_heads
from melodify_lib.describe import local
from melodify_lib.describe.embedding import embed
from melodify_lib.describe.zero_shot import SAYS
from melodify_lib.evaluate.cases import Case, read_cases
from melodify_lib.nouns import Caption
from melodify_lib.settings import Settings
from melodify_lib.tuning import local as tuning

DATA = Path(__file__).parent.parent / "data" / "generate_jsonl"
TRAIN = DATA / "output" / "train.jsonl"
Genres = Callable[[np.ndarray], np.ndarray]
"""Embeddings ``[n, 384]`` to scores ``[n, 20]``."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", action="store_true", help="only what it costs")
    only_costs = parser.parse_args().costs
    print(f"{processor()}, {os.cpu_count()} processors, Python {platform.python_version()}\n")
    costs()
    if not only_costs:
        print()
        variants()


def costs() -> None:
    """Tuning in a process of its own, loading and describing in this one."""
    print("| what | measured | bar |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-c",
            "from melodify_lib.cli import main; main()",
            "tune",
            str(TRAIN),
            "--out",
            folder,
        ]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        print(f"| `melodify tune` on {len(read(TRAIN)):,} pairs | {time.perf_counter() - started:.1f} s | 60 s |")
    embed(["The embedder is loaded before the describer."])
    started = time.perf_counter()
    describer = local.from_settings(Settings.load())
    print(f"| loading, beyond the embedder | {time.perf_counter() - started:.3f} s | 0.5 s |")
    captions = [Caption.from_text(case.caption) for case in read_cases(DATA / "ood_captions.jsonl")[:101]]
    describer.describe(captions[0])
    times = []
    for caption in captions[1:]:
        started = time.perf_counter()
        describer.describe(caption)
        times.append((time.perf_counter() - started) * 1e3)
    slow = statistics.quantiles(times, n=20)[-1]
    print(f"| describing, warm: median (95th percentile) | {statistics.median(times):.0f} ms ({slow:.0f} ms) | 80 ms |")


def variants() -> None:
    """One row a variant."""
    examples = read(TRAIN)
    vectors = embed([example.caption for example in examples])
    card = tuning._card(examples, "0" * 64)
    targets = tuning._Targets(examples, card)
    shares, affects = targets.shares, targets.affect
    names = list(card.genres)
    describer = local.from_settings(Settings.load())

    def shipped(new: np.ndarray) -> np.ndarray:
        return describer.heads(new)["genre"]

    def solved(some: list[Example], rows: np.ndarray) -> Genres:
        heads, _ = tuning._solve(some, rows, card)
        return lambda new: heads(new)["genre"]

    def linear(new: np.ndarray) -> np.ndarray:
        normal = vectors.T @ vectors + 10 * np.eye(vectors.shape[1])
        return new @ np.linalg.solve(normal, vectors.T @ (shares - shares.mean(axis=0)))

    def nearest(count: int) -> Genres:
        return lambda new: np.stack([shares[rows].mean(axis=0) for rows in np.argsort(-(new @ vectors.T))[:, :count]])

    def with_retrieval(new: np.ndarray) -> np.ndarray:
        return shipped(new) + nearest(10)(new)

    def contrast(texts: dict[str, list[str]], weight: float) -> Genres:
        anchors = np.stack([embed(texts[name]).mean(axis=0) for name in names])
        return lambda new: shipped(new) + weight * new @ anchors.T

    def with_affect(weight: float) -> Genres:
        def features(new: np.ndarray, felt: np.ndarray) -> np.ndarray:
            return np.concatenate([new, weight * felt], axis=1) / np.sqrt(1 + weight**2)

        rows = features(vectors, affects)
        alike = kernel_heads.kernel(rows, rows)
        weights = np.linalg.solve(alike + tuning.PENALTY * np.eye(len(rows)), shares - shares.mean(axis=0))

        def scores(new: np.ndarray) -> np.ndarray:
            felt = np.clip(describer.heads(new)["affect"], -1, 1)
            return kernel_heads.kernel(features(new, felt), rows) @ weights

        return scores

    bare = {name: [name] for name in names}
    half = slice(0, None, 2)
    rows: list[tuple[str, Genres]] = [
        ("shipped: kernel ridge, alternatives learned", shipped),
        ("the same on half of the pairs", solved(examples[half], vectors[half])),
        ("one genre a pair, no alternatives", solved([replace(one, alternatives=()) for one in examples], vectors)),
        ("linear ridge instead of the kernel", linear),
        ("the 10 nearest captions vote", nearest(10)),
        ("heads and the 10 nearest together", with_retrieval),
        ("contrast with genre names, weight 0.3", contrast(bare, 0.3)),
        ("contrast with what is said of genres, weight 0.3", contrast(SAYS, 0.3)),
        ("valence and arousal as two more features, weight 0.3", with_affect(0.3)),
        ("valence and arousal as two more features, weight 0.6", with_affect(0.6)),
    ]
    cases = read_cases(DATA / "ood_captions.jsonl")
    captions, paraphrases = embed([one.caption for one in cases]), embed([one.paraphrase or "" for one in cases])
    print("| genres by | acceptable | of paraphrases | the same | genres used |\n| --- | --- | --- | --- | --- |")
    for name, scores in rows:
        answers = [[names[row] for row in np.argmax(scores(new), axis=1)] for new in (captions, paraphrases)]
        same = np.mean([one == other for one, other in zip(*answers, strict=True)])
        figures = (*(acceptable(cases, answer) for answer in answers), same)
        print(f"| {name} | {' | '.join(f'{figure:.3f}' for figure in figures)} | {len(set(answers[0]))} |")


def acceptable(cases: list[Case], answers: list[str]) -> float:
    return float(np.mean([answer in case.genres for case, answer in zip(cases, answers, strict=True)]))


if __name__ == "__main__":
    main()
