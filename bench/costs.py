"""What a song costs on which machine, from what was measured and list prices: the tables of docs/costs.md.

    python bench/costs.py [--seconds 30] [--songs-a-day 1000] [--machines prices.yaml] [--rates rates.yaml]

dollars a song = dollars an hour / songs an hour + what models are paid for it,
songs an hour = 60 × seconds of audio a minute / seconds of a song.

Change a price in melodify_lib/cloud/machines.yaml, or write into bench/rates.yaml what you measured on your machine,
and say it again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melodify_lib.cloud.prices import of_songs
from melodify_lib.cloud.resources import MACHINES
from melodify_lib.settings import Settings
from melodify_lib.tables import read_yaml

ROOT = Path(__file__).parents[1]
HOURS_A_MONTH = 730


RATES = Path(__file__).with_name("rates.yaml")
BUILD_H, NIGHT_H = 1.5, 3.0
"""Of Cloud Build's machine: tests are half an hour here, notebooks twice ten minutes, images were never built."""
IMAGES_GIB = 10 * (1.5 + 5 + 1.5)
"""The last ten (infra/registry.tf) of serving for processors, for CUDA, and web; guessed, as none was ever built."""
NIGHT_CLOUD = 1
"""Dollars: an endpoint for half an hour, three pipeline jobs, some songs (cloudbuild.nightly.yaml)."""


@dataclass(frozen=True)
class Rate:
    """Seconds of audio that are made in a minute by one processor, and by the whole of a machine that was measured."""

    who: str
    processor: float
    machines: Mapping[str, float] = field(default_factory=dict)

    def on(self, machine: str) -> float:
        """Seconds of audio a minute."""
        return self.machines.get(machine, self.processor * processors(machine))


def read_rates(path: Path) -> list[Rate]:
    return [Rate(who, row.pop("processor"), row) for who, row in read_yaml(path).items()]


def dollars_a_song(hourly: float, audio: float, seconds: float) -> float:
    """Of a machine that always has songs to make, `audio` seconds of them a minute."""
    return hourly * seconds / audio / 60


def processors(machine: str) -> int:
    """As the name of a machine type says."""
    return int(re.findall(r"\d+$", machine)[0])


def by_machine(table: dict[str, Any], rates: Sequence[Rate], seconds: float) -> Iterator[str]:
    """Songs an hour and dollars for a thousand, by machine."""
    yield f"| machine | $ an hour | {' | '.join(rate.who for rate in rates)} |"
    yield f"| --- | --- |{' --- |' * len(rates)}"
    for machine, hourly in table["machines"].items():
        if machine.startswith("g2"):  # its GPU was never measured
            continue
        cells = (
            f"{60 * rate.on(machine) / seconds:,.0f}: ${1000 * dollars_a_song(hourly, rate.on(machine), seconds):.2f}"
            for rate in rates
        )
        yield f"| {machine} | {hourly:.3f} | {' | '.join(cells)} |"


def by_gpu(table: dict[str, Any], rates: Sequence[Rate], seconds: float) -> Iterator[str]:
    """How fast a GPU, which nobody measured, must be to be worth its price."""
    best = min(
        (dollars_a_song(hourly, rates[-1].on(name), seconds), name)
        for name, hourly in table["machines"].items()
        if not name.startswith("g2")
    )
    hourly = table["machines"]["g2-standard-4"]
    yield (
        f"g2-standard-4 (one L4, ${hourly:.3f} an hour) is worth it from {hourly / best[0] / 60:.1f} songs of "
        f"{seconds:g} s a minute on, if MusicGen is kept busy: that is what {best[1]} does for the same money."
    )


def by_model() -> Iterator[str]:
    """Dollars for a thousand songs that models are paid beside the machine."""
    yield "| model | asked for | $ a thousand songs |"
    yield "| --- | --- | --- |"
    every = Settings(captioner="openai", describer="gemini", musician="lyria")
    asked = dict(zip(of_songs(every, 1), ("a caption", "a description", "a clip of 30 s"), strict=True))
    for model, dollars in of_songs(every, 1000).items():
        yield f"| {model} | {asked[model]} | ${dollars:.2f} |"


def by_month(table: dict[str, Any], songs_a_day: float) -> Iterator[str]:
    """What stands there all month, whether anybody asks or not, and a song's share of it."""
    services = table["services"]
    standing = {
        "endpoint: n2-standard-4": table["machines"]["n2-standard-4"] * HOURS_A_MONTH,
        "web service: 2 processors, 4 GiB (infra/web.tf)": HOURS_A_MONTH
        * (2 * services["cloud-run-processor"] + 4 * services["cloud-run-gib"]),
        "database: db-g1-small, 10 GiB (infra/database.tf)": HOURS_A_MONTH * services["db-g1-small"]
        + 10 * services["disk-gib-month"],
    }
    yield f"| what is always there | $ a month | a song, at {songs_a_day:,.0f} a day |"
    yield "| --- | --- | --- |"
    for what, dollars in standing.items():
        yield f"| {what} | ${dollars:.0f} | ${dollars * 12 / 365 / songs_a_day:.4f} |"


def by_run(table: dict[str, Any]) -> Iterator[str]:
    """What each build and each night costs, and what their images do."""
    services = table["services"]
    budget = int(re.findall(r'_BUDGET: "(\d+)"', (ROOT / "cloudbuild.nightly.yaml").read_text("utf-8"))[0])
    night = 2 * budget + NIGHT_CLOUD + NIGHT_H * services["build-hour"]
    images = IMAGES_GIB * services["registry-gib-month"]
    yield "| what the project's own work costs | $ | a month |"
    yield "| --- | --- | --- |"
    build = BUILD_H * services["build-hour"]
    yield f"| a build (cloudbuild.yaml), {BUILD_H:g} hours | {build:.2f} | ${20 * build:.0f} for 20 |"
    yield (
        f"| a night (cloudbuild.nightly.yaml), at most: ${budget} the teacher, ${budget} tuning, ${NIGHT_CLOUD} the "
        f"rest, {NIGHT_H:g} hours | {night:.2f} | ${30 * night:,.0f} for 30 |"
    )
    yield f"| registry: {IMAGES_GIB:g} GiB of images, guessed | | ${images:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="length of a song")
    parser.add_argument("--songs-a-day", type=float, default=1000)
    parser.add_argument("--machines", type=Path, default=MACHINES, help="a price table of your own")
    parser.add_argument("--rates", type=Path, default=RATES, help="a table of your own of what was measured")
    wanted = parser.parse_args()
    table, rates = read_yaml(wanted.machines), read_rates(wanted.rates)
    print(f"List prices of {table['checked']} ({table['source']}).\n")
    print(f"Songs of {wanted.seconds:g} s an hour, and what a thousand cost:\n")
    print("\n".join(by_machine(table, rates, wanted.seconds)), "\n", sep="")
    print("\n".join(by_gpu(table, rates, wanted.seconds)), "\n", sep="")
    print("\n".join(by_model()), "\n", sep="")
    print("\n".join(by_month(table, wanted.songs_a_day)), "\n", sep="")
    print("\n".join(by_run(table)))


if __name__ == "__main__":
    main()
