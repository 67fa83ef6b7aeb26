"""Two models on the same prompts: is the difference significant?"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from verl_lite.engine.evals.measures import PromptResult
from verl_lite.errors import DataError
from verl_lite.lab.statistics import mcnemar_exact, mean_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`second` minus `first` on the same prompts.

    `p_value` is McNemar's exact test of greedy answers. Means over samples have None; their interval comes
    from the paired bootstrap.
    """

    measure: str
    count: int
    first: float
    second: float
    low: float
    high: float
    only_first: int | None = None
    only_second: int | None = None
    p_value: float | None = None

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def is_significant(self) -> bool:
        """At the 5% level."""
        return self.p_value < 0.05 if self.p_value is not None else not self.low <= 0.0 <= self.high

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"difference": self.difference, "is_significant": self.is_significant}


def compare_results(
    first: Mapping[str, PromptResult], second: Mapping[str, PromptResult]
) -> list[Comparison]:
    """Paired tests of greedy accuracy and of the mean over samples, if both results have them.

    Raises DataError if the prompts differ.
    """
    if first.keys() != second.keys():
        raise DataError(
            f"the two results are of different prompts ({len(first)} and {len(second)}, "
            f"{len(first.keys() & second.keys())} in common): measure both with the same config"
        )
    pairs = [(first[name], second[name]) for name in first]
    found = []
    greedy = [(a.greedy, b.greedy) for a, b in pairs if a.greedy is not None and b.greedy is not None]
    if greedy:
        only_first, only_second = sum(a and not b for a, b in greedy), sum(b and not a for a, b in greedy)
        found.append(
            _comparison(
                "greedy accuracy",
                [(float(a), float(b)) for a, b in greedy],
                only_first=only_first,
                only_second=only_second,
                p_value=mcnemar_exact(only_first, only_second),
            )
        )
    sampled = [
        (a.num_right / a.num_samples, b.num_right / b.num_samples)
        for a, b in pairs
        if a.num_samples and b.num_samples
    ]
    if sampled:
        found.append(_comparison("mean over samples", sampled))
    return found


def _comparison(name: str, values: list[tuple[float, float]], **tests: Any) -> Comparison:
    low, high = mean_interval([b - a for a, b in values])
    count = len(values)
    return Comparison(
        measure=name,
        count=count,
        first=sum(a for a, _ in values) / count,
        second=sum(b for _, b in values) / count,
        low=low,
        high=high,
        **tests,
    )
