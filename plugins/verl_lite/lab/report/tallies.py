"""Histograms and correlations in one pass, in memory that does not grow with the file."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_EXACT_VALUES = 24  # up to this many distinct values get a bar each
_NUM_BINS = 30
_MAX_KEPT = 200_000  # distinct values; later ones are counted in the bins of the first


@dataclass(slots=True)
class Histogram:
    """The distribution of a stream of numbers: one bar per value while they are few, else equal bins."""

    values: Counter[float] = field(default_factory=Counter)
    overflow: Counter[int] = field(default_factory=Counter)
    _edges: tuple[float, float] | None = None

    def add(self, value: float) -> None:
        if self._edges is None:
            self.values[value] += 1
            if len(self.values) > _MAX_KEPT:
                self._edges = min(self.values), max(self.values)
        else:
            self.overflow[self._bin(value, *self._edges)] += 1

    @staticmethod
    def _bin(value: float, low: float, high: float) -> int:
        place = (value - low) / (high - low) * _NUM_BINS
        return min(max(math.floor(place), 0), _NUM_BINS - 1)

    def to_json(self) -> dict[str, Any]:
        """`bars`: [left edge, right edge, count], equal edges for a single value."""
        if len(self.values) <= _EXACT_VALUES:
            return {"bars": [[value, value, self.values[value]] for value in sorted(self.values)]}
        low, high = self._edges or (min(self.values), max(self.values))
        counts = Counter(self.overflow)
        for value, count in self.values.items():
            counts[self._bin(value, low, high)] += count
        width = (high - low) / _NUM_BINS
        return {"bars": [[low + i * width, low + (i + 1) * width, counts[i]] for i in range(_NUM_BINS)]}


@dataclass(slots=True)
class Correlations:
    """Pearson's correlation of every pair of named values, over the rows that have both."""

    sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        names = sorted(values)
        for i, first in enumerate(names):
            for second in names[:i]:
                a, b = values[second], values[first]
                total = self.sums.setdefault((second, first), [0.0] * 6)
                for index, term in enumerate((1.0, a, b, a * a, b * b, a * b)):
                    total[index] += term

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"a": first, "b": second, "r": _pearson(*total), "rows": int(total[0])}
            for (first, second), total in sorted(self.sums.items())
        ]


def _pearson(count: float, a: float, b: float, aa: float, bb: float, ab: float) -> float | None:
    spread = (count * aa - a * a) * (count * bb - b * b)
    if spread <= 1e-12 * max(1.0, aa * bb):
        return None
    return (count * ab - a * b) / math.sqrt(spread)
