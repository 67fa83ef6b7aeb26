"""The result of `score`: rows in the order of the source, metrics, and tables of other libraries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from verl_lite.lab.html import html_table
from verl_lite.lab.summary import ScoreSummary
from verl_lite.plugins import ScoredRollout
from verl_lite.plugins.records import RecordWriter

_SHOWN_ROWS = 5
_SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scored rollouts.

    rows        one per rollout, in the order of the source
    steps       each row's training step, None where there is none
    advantages  what GRPO would make of the rewards; None for a dropped sample
    metrics     the names of docs/training.md's `reward/...`
    summary     tallies per component, with the commonest reasons for no value
    """

    rows: Sequence[ScoredRollout]
    steps: Sequence[int | None]
    advantages: Sequence[float | None]
    metrics: Mapping[str, float]
    summary: ScoreSummary

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ScoredRollout]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> ScoredRollout:
        return self.rows[index]

    @property
    def rewards(self) -> list[float | None]:
        """Each row's reward; None for a dropped sample."""
        return [row.reward for row in self.rows]

    def columns(self) -> dict[str, list[Any]]:
        """The table behind `to_pandas` and `to_polars`: a column per component, with outcome and reason."""
        rollouts = [row.rollout for row in self.rows]
        table: dict[str, list[Any]] = {
            "id": [rollout.id for rollout in rollouts],
            "group": [rollout.group for rollout in rollouts],
            "prompt": [rollout.prompt_text for rollout in rollouts],
            "completion": [rollout.completion for rollout in rollouts],
            "reference": [rollout.reference for rollout in rollouts],
            "reward": self.rewards,
            "advantage": list(self.advantages),
            "dropped_because": [row.dropped_because for row in self.rows],
        }
        own = set(table)
        for name in self.summary.components:
            scores = [row.components[name].score for row in self.rows]
            table[f"{name}.value" if name in own else name] = [score.value for score in scores]
            table[f"{name}.outcome"] = [score.outcome.value for score in scores]
            table[f"{name}.reason"] = [score.reason for score in scores]
        return table

    def to_pandas(self) -> Any:
        """A pandas DataFrame, one row per rollout. Raises ModuleNotFoundError without pandas."""
        import pandas

        return pandas.DataFrame(self.columns())

    def to_polars(self) -> Any:
        """A polars DataFrame, one row per rollout. Raises ModuleNotFoundError without polars."""
        import polars

        numbers = {"reward": polars.Float64, "advantage": polars.Float64}
        return polars.DataFrame(self.columns(), schema_overrides=numbers)

    def to_arrow(self) -> Any:
        """An Arrow table, one row per rollout."""
        import pyarrow

        return pyarrow.table(self.columns())

    def write(self, path: str | Path) -> None:
        """Write records as `verl-lite score -o` does (.parquet or .jsonl)."""
        with RecordWriter(path) as writer:
            writer.write(self.rows, steps=list(self.steps), advantages=list(self.advantages))

    def __repr__(self) -> str:
        mean = f"{self.summary.reward.mean:.4g}" if self.summary.reward.count else "-"
        names = ", ".join(self.summary.components)
        dropped = f", {self.summary.num_dropped:,} dropped" if self.summary.num_dropped else ""
        return f"<Scores of {len(self):,} rollouts by {names}: mean reward {mean}{dropped}>"

    def _repr_html_(self) -> str:
        parts = [
            [name, _number(part.values.mean if part.values.count else None), _number(part.values.std)]
            + [f"{part.outcomes[kind]:,}" for kind in ("ok", "abstain", "error", "timeout")]
            for name, part in self.summary.components.items()
        ]
        heads = ["component", "mean", "std", "ok", "abstain", "error", "timeout"]
        why = [
            f"<li>{escape(name)}: {escape(reason.sentence)}</li>"
            for name, part in self.summary.components.items()
            for reason in part.why
        ]
        first = [
            [row.rollout.id, row.rollout.completion[-_SHOWN_CHARS:], _number(row.reward)]
            for row in self.rows[:_SHOWN_ROWS]
        ]
        reasons = f"<ul>{''.join(why)}</ul>" if why else ""
        rows = html_table(["id", "completion", "reward"], first)
        return f"<p>{escape(repr(self)[1:-1])}</p>{html_table(heads, parts)}{reasons}{rows}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
