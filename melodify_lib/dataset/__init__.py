"""The dataset: captions and the music that fits them, as JSONL for supervised tuning."""

from melodify_lib.dataset.checks import Problem, check
from melodify_lib.dataset.form import SYSTEM_INSTRUCTION, Example, read, to_line
from melodify_lib.dataset.statistics import Statistics, stats
from melodify_lib.dataset.synthesize import DatasetSummary, build

__all__ = [
    "SYSTEM_INSTRUCTION",
    "DatasetSummary",
    "Example",
    "Problem",
    "Statistics",
    "build",
    "check",
    "read",
    "stats",
    "to_line",
]
