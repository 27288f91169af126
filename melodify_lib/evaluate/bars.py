"""A bar: a figure, and what it must reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """`value` must be at least `bar`, or at most, where less is better. A figure that was not to be had is no miss."""

    name: str
    value: float
    bar: float
    less_is_better: bool = False

    @property
    def passed(self) -> bool:
        if math.isnan(self.value):
            return True
        return self.value <= self.bar if self.less_is_better else self.value >= self.bar

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g}, must be {'≤' if self.less_is_better else '≥'} {self.bar:g}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        value = None if math.isnan(self.value) else round(self.value, 5)
        return {"name": self.name, "value": value, "bar": self.bar, "passed": self.passed}
