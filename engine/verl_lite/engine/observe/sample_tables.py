"""A few rollouts of a step as a table, for trackers that show tables; rollouts/ has every sample.

TensorBoard has no tables: it gets text, indented so that markup in completions is not rendered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verl_lite.plugins import ScoredRollout

NAME = "samples"
MAX_CHARS = 4_000  # of a prompt or a completion


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTable:
    """`data` has one list per sample, in the order of `columns`; None for a reward without a value."""

    columns: Sequence[str]
    data: Sequence[Sequence[Any]]


def sample_table(rows: Sequence[ScoredRollout], *, step: int, count: int) -> SampleTable:
    """The `count` best and worst samples by reward, half each; ties stay in the order of the batch.

    Columns: step, prompt, completion, reward, and one per reward component.
    """
    scored = sorted(
        (row for row in rows if row.reward is not None), key=lambda row: row.reward or 0.0, reverse=True
    )
    best = scored[: -(-count // 2)]
    worst = scored[len(best) :][-(count // 2) :] if count > 1 else []
    names = list(rows[0].components) if rows else []
    return SampleTable(
        columns=["step", "prompt", "completion", "reward", *names],
        data=[
            [
                step,
                row.rollout.prompt_text[-MAX_CHARS:],
                row.rollout.completion[:MAX_CHARS],
                row.reward,
                *(row.components[name].score.value for name in names),
            ]
            for row in [*best, *worst]
        ],
    )


def send_table(name: str, tracker: Any, table: SampleTable, *, step: int) -> None:
    """Send the table to the tracker `name`; trackers without tables or text get nothing."""
    if name == "tensorboard":
        tracker.writer.add_text(NAME, _as_text(table), step)
    elif name == "wandb":
        data = [list(row) for row in table.data]
        tracker.log_table(NAME, columns=list(table.columns), data=data, step=step)
    elif name == "mlflow":
        import mlflow

        content = {column: [row[at] for row in table.data] for at, column in enumerate(table.columns)}
        run_id = tracker.active_run.info.run_id
        mlflow.MlflowClient().log_table(run_id, content, artifact_file=f"{NAME}/step_{step:06d}.json")
    elif name == "trackio":
        import trackio

        data = [list(row) for row in table.data]
        tracker.log({NAME: trackio.Table(columns=list(table.columns), data=data)}, step=step)


def _as_text(table: SampleTable) -> str:
    parts = []
    for _, prompt, completion, *values in table.data:
        named = zip(table.columns[3:], values, strict=True)
        shown = "  ".join(f"{name} {'-' if value is None else f'{value:.4g}'}" for name, value in named)
        lines = f"{shown}\n\n{prompt}\n\n{completion}".splitlines()
        parts.append("\n".join(f"    {line}" for line in lines))
    return "\n\n---\n\n".join(parts)
