"""Monitors that warn in the step in which training goes wrong.

Each monitor reads the step's metrics or rollouts. Its threshold is in the config (`monitors.`), its causes
and cures are in docs/monitors.md under its name. Monitors never change training; rollback.py does, by its
own rules.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from verl_lite.engine.config.monitors import MonitorsConfig
from verl_lite.engine.observe.rollout_metrics import quality_metrics
from verl_lite.plugins import ScoredRollout

DOCS = "docs/monitors.md"
UNEXPLAINED_MISMATCH = 0.1  # nats per token, where more than the dtypes differs

# name -> (the metric it reads, what it means)
MONITORS: Mapping[str, tuple[str, str]] = {
    "flat_groups": (
        "reward/flat_group_fraction",
        "most groups have equal rewards: there is little to learn from",
    ),
    "entropy": ("policy/entropy", "the policy is nearly deterministic: samples no longer explore"),
    "clip_fraction": ("policy/clip_fraction", "many ratios are clipped: updates are too large"),
    "mismatch_kl": (
        "policy/kl_sampler_trainer",
        "sampler and trainer disagree on the probabilities of the same tokens",
    ),
    "kl_high": ("policy/kl_reference", "the policy is far from the reference it should stay near"),
    "kl_low": (
        "policy/kl_reference",
        "the policy does not leave the reference: it is held or hardly learns",
    ),
    "held_out": (
        "evaluation/accuracy",
        "the trained reward rises while held-out accuracy falls: the reward is being hacked",
    ),
    "length_drift": (
        "rollout/completion_tokens_mean",
        "completions have become much longer or shorter than at the start",
    ),
    "truncation": ("rollout/truncated_fraction", "many completions are cut at rollout.max_new_tokens"),
    "repetition": ("rollout/repetition", "completions repeat themselves"),
    "duplicates": ("rollout/duplicate_fraction", "samples of a prompt are the same text"),
    "divergence": (
        "monitor/divergence",
        "the trained reward rises while a shadow verifier does not: measured hacking",
    ),
    "verifier_errors": ("reward/<name>/error_fraction", "a reward fails or times out on many rollouts"),
    "canary": ("canary/max_difference", "the weights in the sampler are close to not being the learner's"),
    "stale_weights": ("rollout/staleness_max", "samples come from weights that are out of date"),
    "tool_errors": ("turns/tool_error_fraction", "many tool calls fail, or cannot be read"),
    "slow_environment": (
        "turns/waiting_share",
        "trajectories wait for tools and environments longer than for the model",
    ),
    "bad_steps": ("learner/bad_steps", "updates were skipped because of nan or inf in their gradients"),
}


@dataclass(frozen=True, slots=True)
class Warned:
    """A threshold that was crossed: `value` of `metric` against `limit`."""

    name: str
    metric: str
    value: float
    limit: float

    def __str__(self) -> str:
        return (
            f"warning {self.name}: {MONITORS[self.name][1]} ({self.metric} {self.value:.3g}, "
            f"limit {self.limit:g}); {DOCS}#{self.name}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Divergence:
    """How much more the trained reward rose; left behind: the shadow rose less than half as much."""

    shadow: str
    gap: float
    is_left_behind: bool


class Monitors:
    """Checks every step. `max_lag`: allowed staleness; `mismatch_limit`: the KL that the dtypes explain."""

    def __init__(
        self, config: MonitorsConfig, *, mismatch_limit: float | None = None, max_lag: int = 0
    ) -> None:
        self._config = config
        self._max_lag = max_lag
        self._mismatch_limit = config.kl_sampler_trainer or mismatch_limit or UNEXPLAINED_MISMATCH
        self._on: set[str] = set()  # the last step's warnings
        self._first: dict[str, list[float]] = {}  # the first window of each drifting number
        self._last: dict[str, deque[float]] = {}
        self._rewards: deque[float] = deque(maxlen=config.window_steps)  # the trained reward's newest means
        self._best: tuple[float, float] | None = None  # best held-out accuracy, reward at that time
        self._hacked: Warned | None = None  # by the last held-out measurement

    def check_held_out(self, accuracy: float, *, before: float | None = None) -> Warned | None:
        """Compare a held-out accuracy with the best so far; returns a warning if it is new.

        `before` is the accuracy before the first step.
        """
        if not self._config.enabled or not self._rewards:
            return None
        reward = fmean(self._rewards)
        if self._best is None:
            start = self._first.get("trained mean") or [reward]
            self._best = (accuracy if before is None else before, start[0])
        best, reward_then = self._best
        was_hacked, limit = self._hacked is not None, self._config.held_out_drop
        is_hacked = best - accuracy > limit and reward > reward_then
        self._hacked = (
            Warned("held_out", "fall of held-out accuracy", best - accuracy, limit) if is_hacked else None
        )
        if accuracy > best:
            self._best = (accuracy, reward)
        return None if was_hacked else self._hacked

    def check(
        self, metrics: Mapping[str, float], rows: Sequence[ScoredRollout], *, version: int
    ) -> tuple[dict[str, float], list[Warned]]:
        """(the monitors' metrics with every `warning/<name>` as 0 or 1, warnings the last step did not have).

        `version` is the newest policy version when `rows` were sampled.
        """
        if not self._config.enabled or not rows:
            return {}, []
        own = quality_metrics(rows, version=version)
        drift = self._drift(metrics)
        if (divergence := self._divergence(metrics)) is not None:
            own["monitor/divergence"] = divergence.gap
        if "reward/mean" in metrics:
            self._rewards.append(metrics["reward/mean"])
            self._first.setdefault("trained mean", [metrics["reward/mean"]])
        warned = [
            *self._above({**metrics, **own}),
            *self._of_rewards(metrics, drift, divergence),
            *self._held_back(metrics),
            *([self._hacked] if self._hacked is not None else []),
        ]
        before, self._on = self._on, {warning.name for warning in warned}
        flags = {f"warning/{name}": float(name in self._on) for name in MONITORS}
        return own | flags, [warning for warning in warned if warning.name not in before]

    def _above(self, metrics: Mapping[str, float]) -> list[Warned]:
        """Monitors that compare one number with one limit."""
        c = self._config
        limits = {
            "flat_groups": c.flat_groups,
            "clip_fraction": c.clip_fraction,
            "mismatch_kl": self._mismatch_limit,
            "kl_high": c.kl_reference_above,
            "truncation": c.truncated_fraction,
            "repetition": c.repetition,
            "duplicates": c.duplicate_fraction,
            "canary": c.canary_part * metrics.get("canary/limit", math.inf),
            "stale_weights": float(max(c.stale_versions, self._max_lag)),
            "tool_errors": c.tool_errors,
            "slow_environment": c.slow_environment,
            "bad_steps": float(c.bad_steps),
        }
        found = []
        for name, limit in limits.items():
            metric = MONITORS[name][0]
            if not metrics.get(metric, 0.0) <= limit:  # nan is beyond every limit
                found.append(Warned(name, metric, metrics[metric], limit))
        entropy = metrics.get("policy/entropy")
        if entropy is not None and entropy < c.entropy_below:
            found.append(Warned("entropy", "policy/entropy", entropy, c.entropy_below))
        return found

    def _held_back(self, metrics: Mapping[str, float]) -> list[Warned]:
        """A KL to the reference that stays at 0 after the first window."""
        _, last = self._windows("kl_reference", metrics.get("policy/kl_reference"))
        limit = self._config.kl_reference_below
        if last and fmean(last) < limit:
            return [Warned("kl_low", "policy/kl_reference", fmean(last), limit)]
        return []

    def _of_rewards(
        self, metrics: Mapping[str, float], drift: float | None, divergence: _Divergence | None
    ) -> list[Warned]:
        c, found = self._config, []
        if drift is not None and max(drift, 1 / drift) > c.length_drift:
            found.append(
                Warned("length_drift", MONITORS["length_drift"][0] + " ratio", drift, c.length_drift)
            )
        if divergence is not None and divergence.is_left_behind and divergence.gap > c.divergence:
            metric = f"rise beyond that of {divergence.shadow}"
            found.append(Warned("divergence", metric, divergence.gap, c.divergence))
        for name in _reward_names(metrics):
            failed = sum(metrics.get(f"reward/{name}/{kind}_fraction", 0.0) for kind in ("error", "timeout"))
            if failed > c.error_fraction:
                metric = f"reward/{name}/error_fraction"
                found.append(Warned("verifier_errors", metric, failed, c.error_fraction))
                break
        return found

    def _drift(self, metrics: Mapping[str, float]) -> float | None:
        """Mean length of the last window divided by the first's; None until both are full."""
        first, last = self._windows("length", metrics.get(MONITORS["length_drift"][0]))
        return fmean(last) / fmean(first) if last and fmean(first) and fmean(last) else None

    def _divergence(self, metrics: Mapping[str, float]) -> _Divergence | None:
        """The divergence of the shadow reward (weight 0) that lags most; None until both windows are full.

        Rises are in standard deviations of the samples' values in the first window.
        """
        trained = self._rise("trained", metrics.get("reward/mean"), metrics.get("reward/std"))
        found = []
        for name in _reward_names(metrics):
            if metrics.get(f"reward/{name}/weight") == 0.0 and "/" not in name:
                shadow = self._rise(
                    name, metrics.get(f"reward/{name}/mean"), metrics.get(f"reward/{name}/std")
                )
                if trained is not None and shadow is not None:
                    behind = shadow < trained / 2
                    found.append(_Divergence(shadow=name, gap=trained - shadow, is_left_behind=behind))
        return max(found, key=lambda one: one.gap, default=None)

    def _rise(self, name: str, mean: float | None, std: float | None) -> float | None:
        first, last = self._windows(f"{name} mean", mean)
        spread, _ = self._windows(f"{name} std", std)
        if not last:
            return None
        unit = max(fmean(spread) if spread else 0.0, pstdev(first), 1e-3)
        return (fmean(last) - fmean(first)) / unit

    def _windows(self, name: str, value: float | None) -> tuple[Sequence[float], Sequence[float]]:
        """The first window, and the last one: empty until it shares no step with the first."""
        size = self._config.window_steps
        first = self._first.setdefault(name, [])
        last = self._last.setdefault(name, deque(maxlen=size))
        if value is not None:
            (first if len(first) < size else last).append(value)
        return first, last if len(last) == size else ()

    def state_dict(self) -> dict[str, Any]:
        return {
            "on": sorted(self._on),
            "rewards": list(self._rewards),
            "best": self._best,
            "hacked": [self._hacked.value, self._hacked.limit] if self._hacked else None,
            "first": self._first,
            "last": {name: list(values) for name, values in self._last.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        size = self._config.window_steps
        self._on = set(state["on"])
        self._rewards = deque(state["rewards"], maxlen=size)
        self._best = (state["best"][0], state["best"][1]) if state["best"] else None
        hacked = state["hacked"]
        self._hacked = Warned("held_out", "fall of held-out accuracy", *hacked) if hacked else None
        self._first = {name: list(values) for name, values in state["first"].items()}
        self._last = {name: deque(values, maxlen=size) for name, values in state["last"].items()}


def _reward_names(metrics: Mapping[str, float]) -> list[str]:
    end = "/weight"
    return [name[7 : -len(end)] for name in metrics if name.startswith("reward/") and name.endswith(end)]
