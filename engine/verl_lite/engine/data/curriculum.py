"""Which prompts are open to a step: gates by success rate, levels by a column, draws by difficulty.

The rates come from the run's own groups (`observe`, once per batch, in the order of the batches), so the
choice follows from the seed and the samples; the state is in the checkpoint.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import TypedDict

from verl_lite.engine.config.curriculum import CurriculumConfig
from verl_lite.engine.types import PromptRow
from verl_lite.errors import DataError

UNKNOWN_RATE = 0.5


class Record(TypedDict):
    """A prompt's moving success rate, how often it was sampled, and the step until which it rests."""

    rate: float
    visits: int
    rest_until: int


class CurriculumState(TypedDict):
    step: int
    records: dict[str, Record]


class Curriculum:
    """The records of all prompts of a run."""

    def __init__(self, config: CurriculumConfig, prompts: Sequence[PromptRow], *, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._ranks = _ranks(prompts, config.levels.column) if config.levels is not None else {}
        self.step = 0
        self._records: dict[str, Record] = {}

    @property
    def draws(self) -> bool:
        """Whether prompts are drawn by difficulty instead of in epochs."""
        return self._config.order == "difficulty"

    def observe(self, rates: Mapping[str, float]) -> None:
        """The fraction of right completions of every group of the next batch, by prompt."""
        self.step += 1
        for name, rate in rates.items():
            old = self._records.get(name)
            if old is not None:
                rate = self._config.memory * old["rate"] + (1 - self._config.memory) * rate
            record = Record(rate=rate, visits=1 + (old["visits"] if old else 0), rest_until=0)
            self._records[name] = {**record, "rest_until": self._rest(record)}

    def _rest(self, record: Record) -> int:
        gate = self._config.gate
        if gate is None or record["visits"] < gate.visits:
            return 0
        is_open = gate.at_or_below < record["rate"] < gate.at_or_above
        return 0 if is_open else self.step + gate.rest_steps

    def open(self, names: Sequence[str], *, at_least: int) -> set[str]:
        """The prompts that neither rest nor are of a later level; else also those that come soonest."""

        def wait(name: str) -> tuple[float, int, str]:
            record = self._records.get(name)
            rest = 0 if record is None else max(record["rest_until"] - self.step, 0)
            return max(self._ranks.get(name, 0.0) - self._share(), 0.0), rest, name

        waits = {name: wait(name) for name in names}
        found = {name for name, (level, rest, _) in waits.items() if level == 0 and rest == 0}
        if len(found) < at_least:
            found |= set(sorted(waits, key=lambda name: waits[name])[:at_least])
        return found

    def _share(self) -> float:
        levels = self._config.levels
        if levels is None:
            return 1.0
        return min(levels.start + (1.0 - levels.start) * self.step / levels.steps, 1.0)

    def draw(self, names: Sequence[str], count: int, *, nonce: int) -> list[str]:
        """`count` different names, drawn one after the other by their weights."""
        rng = random.Random(f"curriculum:{self._seed}:{nonce}")
        keys = {name: -math.log(1.0 - rng.random()) / self._weight(name) for name in sorted(names)}
        return sorted(keys, key=lambda name: keys[name])[:count]

    def _weight(self, name: str) -> float:
        record = self._records.get(name)
        rate = UNKNOWN_RATE if record is None else min(max(record["rate"], 0.0), 1.0)
        return max(4 * rate * (1 - rate), self._config.floor)

    @property
    def metrics(self) -> dict[str, float]:
        """How many prompts were sampled so far, how many rest, and their mean success rate."""
        records = self._records.values()
        return {
            "data/prompts_seen": float(len(records)),
            "data/prompts_resting": float(sum(record["rest_until"] > self.step for record in records)),
            "data/success_rate": sum(record["rate"] for record in records) / max(len(records), 1),
        }

    def state_dict(self) -> CurriculumState:
        return {"step": self.step, "records": {name: {**record} for name, record in self._records.items()}}

    def load_state_dict(self, state: CurriculumState) -> None:
        self.step = state["step"]
        self._records = {name: {**record} for name, record in state["records"].items()}


def _ranks(prompts: Sequence[PromptRow], column: str) -> dict[str, float]:
    """Each prompt's place in (0, 1] by the column; equal values have equal places."""
    values: dict[str, float] = {}
    for prompt in prompts:
        value = prompt.columns.get(column)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DataError(
                f"data.curriculum.levels.column={column}: row {prompt.id} has {value!r}, expected a number"
            )
        values[prompt.id] = float(value)
    ordered = sorted(values.values())
    first_with = {value: at for at, value in reversed(list(enumerate(ordered)))}
    return {name: (first_with[value] + 1) / len(ordered) for name, value in values.items()}
