"""What a song costs on which machine, from what was measured and list prices: the tables of docs/costs.md.

    python bench/costs.py [--seconds 30] [--songs-a-day 1000] [--machines melodify_lib/cloud/machines.yaml]

dollars a song = dollars an hour / songs an hour + what models are paid for it,
songs an hour = 60 × seconds of audio a minute and processor × processors / seconds of a song.

Change a price in the table, or a rate in `RATES` to what you measured on your machine, and say it again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melodify_lib.cloud.prices import of_songs
from melodify_lib.cloud.resources import MACHINES
from melodify_lib.settings import Settings
from melodify_lib.tables import read_yaml

HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Rate:
    """Seconds of audio that are made in a minute by one processor, and where that was measured (on two)."""

    who: str
    audio: float
    source: str


RATES = (
    Rate("arranger", 60 / 0.91 * 30 / 2, "README: `compose(…, seconds=30)`, warm: 0.91 s"),
    Rate("MusicGen, `int8`, one song at a time", 14.4 * 5 / 2, "serving/README.md: 14.4 songs of 5 s a minute"),
    Rate("MusicGen, `int8`, 16 callers", 38.6 * 5 / 2, "serving/README.md: 38.6 songs of 5 s a minute"),
)


def dollars_a_song(hourly: float, processors: int, rate: Rate, seconds: float) -> float:
    """Of a machine that always has songs to make."""
    return hourly * seconds / (rate.audio * processors) / 60


def processors(machine: str) -> int:
    """As the name of a machine type says."""
    return int(re.findall(r"\d+$", machine)[0])


def by_machine(table: dict[str, Any], seconds: float) -> Iterator[str]:
    """Dollars for a thousand songs, by machine."""
    yield f"| machine | $ an hour | {' | '.join(rate.who for rate in RATES)} |"
    yield f"| --- | --- |{' --- |' * len(RATES)}"
    for machine, hourly in table["machines"].items():
        if machine.startswith("g2"):  # its GPU was never measured
            continue
        cells = (1000 * dollars_a_song(hourly, processors(machine), rate, seconds) for rate in RATES)
        yield f"| {machine} | {hourly:.3f} | {' | '.join(f'${cell:.2f}' for cell in cells)} |"


def by_gpu(table: dict[str, Any], seconds: float) -> Iterator[str]:
    """How fast a GPU, which nobody measured, must be to be worth its price."""
    best = min(
        (dollars_a_song(hourly, processors(name), RATES[-1], seconds), name)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="length of a song")
    parser.add_argument("--songs-a-day", type=float, default=1000)
    parser.add_argument("--machines", type=Path, default=MACHINES, help="a price table of your own")
    wanted = parser.parse_args()
    table = read_yaml(wanted.machines)
    print(f"List prices of {table['checked']} ({table['source']}).\n")
    print(f"A thousand songs of {wanted.seconds:g} s:\n")
    print("\n".join(by_machine(table, wanted.seconds)), "\n", sep="")
    print("\n".join(by_gpu(table, wanted.seconds)), "\n", sep="")
    print("\n".join(by_model()), "\n", sep="")
    print("\n".join(by_month(table, wanted.songs_a_day)))


if __name__ == "__main__":
    main()
