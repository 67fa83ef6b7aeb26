"""Golden scores: every component's score of every row, pinned in a file beside the tests.

A golden file (`NAME.golden.json`) names its rollouts and rewards by paths relative to itself.
`verl-lite score --golden` writes and compares it; `pytest --verl-lite-golden` runs it anywhere.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from verl_lite.errors import DataError
from verl_lite.lab.reading import open_rollouts
from verl_lite.lab.scoring import ScoringOptions, open_scorer, score_groups, without_breaker
from verl_lite.plugins import ScoredRollout, load_rewards_config
from verl_lite.plugins.config_file import ConfigModel, validate

SUFFIX = ".golden.json"


class GoldenScore(ConfigModel):
    value: float | None
    outcome: str = "ok"


class GoldenRow(ConfigModel):
    row: int
    id: str
    reward: float | None
    components: Mapping[str, GoldenScore]


class Golden(ConfigModel):
    """The pinned scores. `tolerance` is absolute; `tolerances` overrides it per component."""

    config: str
    rollouts: str
    rows: Sequence[GoldenRow]
    tolerance: float = Field(default=1e-6, ge=0)
    tolerances: Mapping[str, float] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One row whose scores differ from the golden file; `differences` are sentences."""

    row: int
    id: str
    differences: tuple[str, ...] = field(default_factory=tuple)

    def __str__(self) -> str:
        return f"row {self.row} ({self.id}): " + "; ".join(self.differences)


def make_golden(
    path: str | Path, config: str | Path, rollouts: str | Path, options: ScoringOptions | None = None
) -> Golden:
    """Score the rollouts and pin the scores; paths are stored relative to the golden file at `path`."""
    folder = Path(path).resolve().parent
    return Golden(
        config=os.path.relpath(Path(config).resolve(), folder),
        rollouts=os.path.relpath(Path(rollouts).resolve(), folder),
        rows=_score(Path(config), Path(rollouts), options),
    )


def write_golden(path: str | Path, golden: Golden) -> None:
    Path(path).write_text(golden.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_golden(path: str | Path) -> Golden:
    """The golden file at `path`. Raises DataError if it is missing or not a golden file."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the golden file {path}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    return validate(Golden, data, source=str(path))


def compare_golden(path: str | Path, options: ScoringOptions | None = None) -> list[Mismatch]:
    """Score the golden file's rollouts again and return the rows that differ, in order."""
    golden = read_golden(path)
    folder = Path(path).parent
    scored = _score(folder / golden.config, folder / golden.rollouts, options)
    if len(scored) != len(golden.rows):
        raise DataError(
            f"{path} pins {len(golden.rows)} rows, {golden.rollouts} has {len(scored)}: "
            "pin again with --update-golden"
        )
    compared = (_compare(golden, old, new) for old, new in zip(golden.rows, scored, strict=True))
    return [mismatch for mismatch in compared if mismatch.differences]


def _score(config: Path, rollouts: Path, options: ScoringOptions | None) -> list[GoldenRow]:
    """Every row's scores, in the order of the file."""
    options = options or ScoringOptions()
    rewards = without_breaker(load_rewards_config(config))
    with (
        open_rollouts(rollouts, format=options.format, renames=options.mapping(rewards)) as opened,
        open_scorer(rewards, options) as scorer,
    ):
        pinned = [
            _pin(record.row, row)
            for records, rows in score_groups(opened.groups(), scorer)
            for record, row in zip(records, rows, strict=True)
        ]
    return sorted(pinned, key=lambda row: row.row)


def _pin(number: int, row: ScoredRollout) -> GoldenRow:
    return GoldenRow(
        row=number,
        id=row.rollout.id,
        reward=row.reward,
        components={
            name: GoldenScore(value=part.score.value, outcome=part.score.outcome.value)
            for name, part in row.components.items()
        },
    )


def _compare(golden: Golden, old: GoldenRow, new: GoldenRow) -> Mismatch:
    differences: list[str] = []
    if not _close(old.reward, new.reward, golden.tolerance):
        differences.append(f"reward was {old.reward}, is {new.reward}")
    for name in {**old.components, **new.components}:
        before, after = old.components.get(name), new.components.get(name)
        if before is None or after is None:
            differences.append(f"{name} {'is new' if before is None else 'is gone'}")
        elif before.outcome != after.outcome:
            differences.append(f"{name} was {before.outcome}, is {after.outcome}")
        elif not _close(before.value, after.value, golden.tolerances.get(name, golden.tolerance)):
            differences.append(f"{name} was {before.value}, is {after.value}")
    return Mismatch(row=new.row, id=new.id, differences=tuple(differences))


def _close(old: float | None, new: float | None, tolerance: float) -> bool:
    if old is None or new is None:
        return old is new
    return math.isclose(old, new, rel_tol=0.0, abs_tol=tolerance)
