"""A bar: a figure, and what it must reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """`value` must be at least `bar`, or at most, where less is better.

    A figure that was not to be had, such as the tempo of music without a pulse, is no miss; `too_few` says of what
    there was too little for the bar to be reached, whatever the figure.
    """

    name: str
    value: float
    bar: float
    less_is_better: bool = False
    too_few: str = ""

    @property
    def passed(self) -> bool:
        if self.too_few or math.isnan(self.value):
            return not self.too_few
        return self.value <= self.bar if self.less_is_better else self.value >= self.bar

    def __str__(self) -> str:
        wanted = f"must be {'≤' if self.less_is_better else '≥'} {self.bar:g}"
        return f"{self.name} {self.value:.3g}, {wanted}{f', on {self.too_few}' if self.too_few else ''}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        value = None if math.isnan(self.value) else round(self.value, 5)
        return {"name": self.name, "value": value, "bar": self.bar, "passed": self.passed}
