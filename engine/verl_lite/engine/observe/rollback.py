"""Rules that notice a reward collapse or a KL blow-up, and the record of what was done about it.

What is done is the trainer's: stop, or go back to the last good checkpoint with a lower learning rate.
events.jsonl of the run folder has one line a rollback; how many there are decides the learning rate,
also after a resume.
"""

import json
import math
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from verl_lite.engine.config.monitors import MonitorsConfig
from verl_lite.engine.rundir.checkpoint_files import (
    clear_write_errors,
    newest_whole,
    remove_checkpoints_after,
)
from verl_lite.errors import TrainingError

__all__ = ["Events", "RollbackRules", "Trouble", "go_back", "offer"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A rule that was broken: which, why, and the last step that was still good."""

    rule: str
    why: str
    good_step: int


class RollbackRules:
    """Judges every step's numbers. See RollbackConfig for the rules."""

    def __init__(self, config: MonitorsConfig) -> None:
        self._rules = config.rollback
        self._recent: deque[float] = deque(maxlen=config.window_steps)
        self._best = (-math.inf, 0)  # the best window mean and the step it ended at
        self._lowest = math.inf

    def judge(self, metrics: Mapping[str, float], *, step: int) -> Trouble | None:
        """The rule that `step` broke; None when all is well."""
        name = "policy/kl_reference" if "policy/kl_reference" in metrics else "policy/kl_sampler_trainer"
        kl = metrics.get(name, 0.0)
        if not kl <= self._rules.max_kl:  # nan counts as too much
            return Trouble(
                "kl_blow_up", f"{name} is {kl:.3g}, above {self._rules.max_kl:g} nats a token", step - 1
            )
        return self._collapse(metrics.get("reward/mean"), step)

    def _collapse(self, reward: float | None, step: int) -> Trouble | None:
        if reward is None:
            return None
        self._recent.append(reward)
        if len(self._recent) < (self._recent.maxlen or 1):
            return None
        mean, (best, at) = fmean(self._recent), self._best
        reach = best - self._lowest
        if reach >= self._rules.min_reward_range and best - mean > self._rules.reward_drop_fraction * reach:
            steps = f"{len(self._recent)} steps"
            why = f"the mean reward of {steps} fell from {best:.3g} (at step {at}) to {mean:.3g}"
            return Trouble("reward_collapse", why, at)
        self._best = max(self._best, (mean, step))
        self._lowest = min(self._lowest, mean)
        return None

    def state_dict(self) -> dict[str, Any]:
        finite = math.isfinite(self._lowest)
        return {
            "recent": list(self._recent),
            "best": list(self._best) if finite else None,
            "lowest": self._lowest if finite else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._recent.clear()
        self._recent.extend(state["recent"])
        self._best = (float(state["best"][0]), int(state["best"][1])) if state["best"] else (-math.inf, 0)
        self._lowest = math.inf if state["lowest"] is None else float(state["lowest"])


class Events:
    """events.jsonl: what the trainer did of its own accord."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, event: Mapping[str, Any]) -> None:
        with clear_write_errors(str(self._path)), self._path.open("ab") as file:
            file.write((json.dumps(event) + "\n").encode())
            os.fsync(file.fileno())

    def num_rollbacks(self) -> int:
        if not self._path.exists():
            return 0
        lines = self._path.read_text(encoding="utf-8").splitlines()
        return sum(line.startswith('{"event": "rollback"') and line.endswith("}") for line in lines)


def offer(trouble: Trouble, *, step: int, checkpoints: Path) -> str:
    """What to say where the rules do nothing: what broke, and the last good checkpoint."""
    path, _ = newest_whole(checkpoints, up_to_step=trouble.good_step)
    if path is None:
        then = f"no checkpoint of step {trouble.good_step} or before is left"
    else:
        then = (
            f"the last good checkpoint is {path}: go on from it with model.path={path / 'policy'}, or have "
            "it done with monitors.rollback.on=rollback"
        )
    return f"{trouble.rule} at step {step}: {trouble.why}; {then}; docs/monitors.md#rollback"


def go_back(
    trouble: Trouble, *, step: int, config: MonitorsConfig, checkpoints: Path, events: Events
) -> Path:
    """Record the rollback and delete newer checkpoints; returns the one to continue from.

    Raises TrainingError when the rules say stop, nothing to go back to is left, or it was tried too often.
    """
    rules, done = config.rollback, events.num_rollbacks()
    why = f"step {step}, {trouble.rule}: {trouble.why}"
    if rules.on == "stop":
        events.add({"event": "stop", "step": step, "rule": trouble.rule, "why": trouble.why})
        raise TrainingError(f"{why}. Stopped, as monitors.rollback.on says; see docs/monitors.md#rollback")
    if done >= rules.max_rollbacks:
        raise TrainingError(
            f"{why}. It was rolled back {done} times already (monitors.rollback.max_rollbacks)"
        )
    path, _ = newest_whole(checkpoints, up_to_step=trouble.good_step)
    if path is None:
        raise TrainingError(
            f"{why}. There is no checkpoint of step {trouble.good_step} or before to go back to: write them "
            "more often (checkpoints.every_steps) or keep more (checkpoints.keep)"
        )
    to_step = int(path.name.removeprefix("step_"))
    remove_checkpoints_after(checkpoints, to_step)
    factor = rules.learning_rate_factor ** (done + 1)
    events.add(
        {
            "event": "rollback",
            "step": step,
            "to_step": to_step,
            "rule": trouble.rule,
            "why": trouble.why,
            "learning_rate_factor": factor,
        }
    )
    return path
