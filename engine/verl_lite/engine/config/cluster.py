"""The `cluster` and `asynchrony` sections of the config: where parts run, and how far rollouts run ahead."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from verl_lite.plugins.config_file import ConfigModel


class RewardActorsConfig(ConfigModel):
    """`count` reward workers as Ray actors (0: none; rewards run with the trainer); resources per worker."""

    count: NonNegativeInt = 0
    """Number of reward workers as Ray actors; 0: rewards run with the trainer."""
    cpus: PositiveFloat = 1.0
    """CPUs per worker."""
    gpus: NonNegativeFloat = 0.0
    """GPUs per worker, for rewards that are models."""


class ClusterConfig(ConfigModel):
    """How a run uses Ray. Ray starts only if it places part of the run."""

    address: str | None = None
    """"auto" or host:port of a running Ray cluster. Unset: a local Ray for this run, if anything is placed by
    it."""
    start_timeout_s: PositiveFloat = 180.0
    """Limit for starting an actor, in seconds. Raise it for large models on slow disks."""
    call_timeout_s: PositiveFloat = 1800.0
    """Limit per call in seconds, after which an actor counts as lost."""
    engine_timeout_s: PositiveFloat = 300.0
    """Limit per call of a rollout engine in seconds; calls are short, new weights take longest."""
    max_restarts: NonNegativeInt = 3
    """How often a lost engine, reward worker or learner is replaced before the run stops."""
    rewards: RewardActorsConfig = Field(default_factory=RewardActorsConfig)
    """Reward workers as Ray actors."""


class AsynchronyConfig(ConfigModel):
    """How far sampling runs ahead of training."""

    mode: Literal["sync", "one_ahead", "async"] = "sync"
    """sync: sample, train and sync in turn. one_ahead: the old policy samples the next batch while this one
    trains. async: engines never wait and load new weights in the middle of completions."""
    max_lag: PositiveInt = 1
    """Largest number of updates between sampling a token and training on it (async)."""
    stale: Literal["correct", "drop"] = "correct"
    """What happens to a group older than max_lag: drop it, or train on it with algorithm.importance's weights
    (correct)."""

    @property
    def largest_lag(self) -> int:
        """Updates between sampling and training, by mode."""
        return {"sync": 0, "one_ahead": 1, "async": self.max_lag}[self.mode]

    def check(
        self,
        *,
        advantage: str,
        loss: str,
        is_corrected: bool,
        dynamic_sampling: bool,
        takes_weights_anytime: bool,
    ) -> None:
        """Raise ValueError, with the reason, for settings the mode rules out."""
        if self.mode != "sync" and loss == "policy_gradient" and not is_corrected:
            raise ValueError(
                f"asynchrony.mode={self.mode} trains on samples of older policies, but loss=policy_gradient "
                "is only right on-policy: set algorithm.importance.mode to truncate or mask, or mode sync"
            )
        if self.mode != "async":
            return
        if not is_corrected and (self.stale == "correct" or self.max_lag > 1):
            raise ValueError(
                f"asynchrony.mode=async with stale={self.stale} and max_lag={self.max_lag} trains on tokens "
                "of policies several updates old, which is only right with importance weights: set "
                "algorithm.importance.mode to truncate or mask, or max_lag: 1 with stale: drop"
            )
        if advantage == "gae":
            raise ValueError(
                "asynchrony.mode=async with advantage=gae: the tokens of one completion come from several "
                "policies, and importance weights on the loss do not correct the critic's returns for that: "
                "use mode one_ahead or sync, or an advantage without a critic"
            )
        if dynamic_sampling:
            raise ValueError(
                "asynchrony.mode=async with dynamic_sampling: its refills are rounds that wait for each "
                "other, and async has no rounds: use mode one_ahead or sync"
            )
        if not takes_weights_anytime:
            raise ValueError(
                "asynchrony.mode=async with engines that cannot take new weights in the middle of a "
                "completion: use rollout.sampler: vllm with rollout.placement: disaggregated, or mode "
                "one_ahead or sync"
            )
