"""Shared by all adapters: score with one of our configs inside another trainer.

The trainers take one number per completion. What they cannot support is refused when the adapter is
made, not lost in training: our advantages (`combine: gdpo`), process rewards, rewards that compare
samples if the trainer passes them one by one, and schedules if it does not pass its step.
"""

import math
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_lite.errors import ConfigError, RewardError
from verl_lite.plugins.composite import RewardsConfig, load_rewards_config
from verl_lite.plugins.composite.config import ComponentConfig, GroupConfig
from verl_lite.plugins.composite.schedule import Schedule
from verl_lite.plugins.config_file import validate
from verl_lite.plugins.contract import Component
from verl_lite.plugins.records import to_record
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import ScoredBatch, ScoredRollout
from verl_lite.plugins.scorer import Scorer

ConfigSource = str | Path | Mapping[str, Any] | RewardsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeSettings:
    """What a trainer supports, and how to score its rewards.

    sees_groups  it passes all samples of a prompt in one call
    tells_step   it passes its training step
    dropped      the number for a dropped sample if the trainer needs one; None raises RewardError
    workers, debug_inline  as in Scorer
    """

    peer: str
    sees_groups: bool = False
    tells_step: bool = False
    dropped: float | None = None
    workers: int | None = None
    debug_inline: bool = False


class RewardBridge:
    """Our rewards, called by a trainer. Each process opens its own Scorer at the first call.

    Threads may call it concurrently. It is closed by `close`, at the end of a `with`, or with the
    process; it pickles as its config. Raises ConfigError for what the trainer cannot support.
    """

    def __init__(self, config: ConfigSource, settings: BridgeSettings) -> None:
        self.config = read_rewards(config)
        self.settings = settings
        self._lock = threading.Lock()
        self._scorer: Scorer | None = None
        self._owner = 0
        self.components = self._new_scorer().components
        check_support(self.config, self.components, settings)

    def score(self, rollouts: Sequence[Rollout], *, step: int = 0) -> ScoredBatch:
        """Score `rollouts` at `step`. Raises RewardError if scoring stops, and for process rewards."""
        batch = self._open().score(rollouts, step=step)
        refuse_steps(batch.rows, self.settings.peer)
        return batch

    def reward(self, row: ScoredRollout) -> float:
        """The row's reward; for a dropped row `settings.dropped`, or RewardError if that is None."""
        return reward_number(row, self.settings)

    def close(self) -> None:
        """Stop the worker processes; the next call starts them again."""
        with self._lock:
            scorer, self._scorer = self._scorer, None
            if scorer is not None and self._owner == os.getpid():
                scorer.__exit__(None, None, None)

    def __enter__(self) -> "RewardBridge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type["RewardBridge"], tuple[RewardsConfig, BridgeSettings]]:
        return RewardBridge, (self.config, self.settings)

    def _new_scorer(self) -> Scorer:
        settings = self.settings
        return Scorer(self.config, workers=settings.workers, debug_inline=settings.debug_inline)

    def _open(self) -> Scorer:
        with self._lock:
            if self._scorer is None or self._owner != os.getpid():  # a forked trainer needs its own workers
                scorer = self._new_scorer()
                scorer.__enter__()
                weakref.finalize(self, _close_in, os.getpid(), scorer)
                self._scorer, self._owner = scorer, os.getpid()
            return self._scorer


def refuse_steps(rows: Sequence[ScoredRollout], peer: str) -> None:
    """Raise RewardError for process rewards, which the peer's one number per sample cannot hold."""
    for row in rows:
        stepped = [name for name, part in row.components.items() if part.weight and part.score.steps]
        if stepped:
            raise RewardError(
                f"{stepped[0]} gave process rewards (values at positions), and {peer} takes one number "
                "per sample: leave that reward out here, or give it weight 0"
            )


def reward_number(row: ScoredRollout, settings: BridgeSettings) -> float:
    """The row's reward; for a dropped row `settings.dropped`, or RewardError if that is None."""
    if row.reward is not None:
        return row.reward
    if settings.dropped is None:
        raise RewardError(
            f"rollout {row.rollout.id!r} has no reward ({row.dropped_because}), and {settings.peer} "
            "needs a number: set on_error, on_timeout or on_abstain to zero under `scoring:`, "
            "or give the adapter dropped=NUMBER"
        )
    return settings.dropped


def make_rollout(number: int, /, **row: object) -> Rollout:
    """The `number`-th rollout of a call, from the keys of a record file; equal prompts share a group."""
    return to_record(row, number).rollout


def component_values(row: ScoredRollout) -> dict[str, float]:
    """Each component's value before its weight, nan if it has none; for logs only."""
    values = {name: part.score.value for name, part in row.components.items()}
    return {name: math.nan if value is None else value for name, value in values.items()}


def _close_in(process_id: int, scorer: Scorer) -> None:
    if os.getpid() == process_id:
        scorer.__exit__(None, None, None)


def read_rewards(config: ConfigSource) -> RewardsConfig:
    if isinstance(config, RewardsConfig):
        return config
    if isinstance(config, Mapping):
        return validate(RewardsConfig, config, source="the rewards of the adapter")
    return load_rewards_config(config)


def check_support(config: RewardsConfig, components: Sequence[Component], settings: BridgeSettings) -> None:
    """Raise ConfigError for what the peer cannot support, whatever the rollouts."""
    if config.scoring.combine == "gdpo":
        raise ConfigError(
            f"scoring.combine: gdpo makes advantages, and {settings.peer} makes its own from one reward "
            "per sample: use combine: sum here"
        )
    if settings.dropped is not None and not math.isfinite(settings.dropped):
        raise ConfigError(f"dropped={settings.dropped!r}: expected a finite number")
    scheduled = None if settings.tells_step else _scheduled(config.rewards)
    if scheduled:
        raise ConfigError(
            f"rewards.{scheduled}.weight follows a schedule, and {settings.peer} does not pass the "
            "training step to reward functions: give a fixed weight"
        )
    _check_forms(components, settings)


def _scheduled(rewards: Mapping[str, ComponentConfig | GroupConfig]) -> str | None:
    for name, node in rewards.items():
        if isinstance(node.weight, Schedule):
            return name
        below = _scheduled(node.rewards) if isinstance(node, GroupConfig) else None
        if below:
            return f"{name}.rewards.{below}"
    return None


def _check_forms(components: Sequence[Component], settings: BridgeSettings) -> None:
    if settings.sees_groups:
        return
    for component in components:
        if component.definition.form == "group":
            raise ConfigError(
                f"reward {component.name!r} compares all samples of a prompt, and {settings.peer} "
                "passes reward functions one sample at a time: leave that reward out here"
            )
