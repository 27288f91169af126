"""How many songs ended how, and in which time, since the database was made.

Workers count here and the server's metrics tell of it: these are processes apart, and the rows of tracks go after days.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from django.db.models import F
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from web.tracks.models import Fault, Stage, State, Tally

WITHIN = ("1", "2", "5", "10", "20", "30", "60", "120", "300", "600", "+Inf")
"""Upper ends (s) of a histogram's buckets, as Prometheus writes them."""
STAGE = "stage"
_ENDS = (State.DONE, State.CANCELLED)
_STAGES = (Stage.CAPTION, Stage.DESCRIBE, Stage.PLAY)


def count(what: str, kind: str = "", seconds: float = 0.0) -> None:
    """One more song that ended as `what` (a `State`), with its kind of `Fault`; or one more `STAGE`, with its name."""
    within = next(one for one in WITHIN if seconds <= float(one))
    tally = Tally.objects.filter(what=what, kind=kind, within=within)
    more = {"count": F("count") + 1, "seconds": F("seconds") + seconds}
    if not tally.update(**more):
        Tally.objects.bulk_create([Tally(what=what, kind=kind, within=within)], ignore_conflicts=True)
        tally.update(**more)


class Collector:
    """For a registry of prometheus_client."""

    def collect(self) -> Iterator[Metric]:
        found: defaultdict[tuple[str, str], dict[str, Tally]] = defaultdict(dict)
        for one in Tally.objects.all():
            found[one.what, one.kind][one.within] = one
        songs = CounterMetricFamily("melodify_web_songs", "Songs by how they ended", labels=["end", "kind"])
        for end, kind in [*((end, "") for end in _ENDS), *((State.FAILED, fault) for fault in Fault)]:
            songs.add_metric([end, kind], sum(one.count for one in found[end, kind].values()))
        yield songs
        times = HistogramMetricFamily("melodify_web_song_seconds", "From a worker's first look to a song that is done")
        times.add_metric([], *_histogram(found[State.DONE, ""]))
        yield times
        stages = HistogramMetricFamily("melodify_web_stage_seconds", "Time of a song's stage", labels=["stage"])
        for stage in _STAGES:
            stages.add_metric([stage], *_histogram(found[STAGE, stage]))
        yield stages


def _histogram(tallies: dict[str, Tally]) -> tuple[list[tuple[str, float]], float]:
    """Buckets with all that is within them, and the sum of seconds."""
    counts = accumulate(tallies[one].count if one in tallies else 0 for one in WITHIN)
    return list(zip(WITHIN, map(float, counts), strict=True)), sum(one.seconds for one in tallies.values())
