"""The `cluster` and `asynchrony` sections of the config: where parts run, and how far rollouts run ahead.

How many there are of each stands where the part itself does: learner.num_ranks, rollout.num_engines.
"""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from verl_lite.plugins.config_file import ConfigModel

__all__ = ["AsynchronyConfig", "ClusterConfig", "RewardActorsConfig"]


class RewardActorsConfig(ConfigModel):
    """`count` reward workers as Ray actors (0: rewards run beside the trainer), and what each asks for."""

    count: NonNegativeInt = 0
    cpus: PositiveFloat = 1.0
    gpus: NonNegativeFloat = 0.0


class ClusterConfig(ConfigModel):
    """Ray's place in a run. It is started only when something of the run is placed by it.

    address          unset: a Ray of this run's own, gone with it; "auto" or host:port: a running cluster
    start_timeout_s  how long an actor may take until it answers
    call_timeout_s   how long any single call may take before its actor counts as lost
    engine_timeout_s how long a rollout engine may stay silent before it counts as lost: its calls are
                     short, only new weights take longer
    max_restarts     how often a lost engine, reward worker or learner is replaced before the run stops
    """

    address: str | None = None
    start_timeout_s: PositiveFloat = 180.0
    call_timeout_s: PositiveFloat = 1800.0
    engine_timeout_s: PositiveFloat = 300.0
    max_restarts: NonNegativeInt = 3
    rewards: RewardActorsConfig = Field(default_factory=RewardActorsConfig)


class AsynchronyConfig(ConfigModel):
    """How far sampling runs ahead of training.

    mode     sync: sample, train, sync, in turn. one_ahead: the next batch is sampled while this one
             trains, by the policy before the update. async: engines never wait; weights reach
             them in the middle of completions, whose tokens carry the version that sampled them
    max_lag  updates between the version that sampled a token and the one that trains on it (async)
    stale    what becomes of a group of completions beyond max_lag (one that later ones overtook):
             drop it, or train on it with algorithm.importance's weights
    """

    mode: Literal["sync", "one_ahead", "async"] = "sync"
    max_lag: PositiveInt = 1
    stale: Literal["correct", "drop"] = "correct"

    @property
    def largest_lag(self) -> int:
        """Updates between sampling and training that the mode itself causes."""
        return {"sync": 0, "one_ahead": 1, "async": self.max_lag}[self.mode]

    def check(
        self,
        *,
        advantage: str,
        loss: str,
        importance: str,
        dynamic_sampling: bool,
        takes_weights_anytime: bool,
    ) -> None:
        """Refuse what does not go with the mode; raises ValueError with the reason."""
        if self.mode != "sync" and loss == "policy_gradient" and importance == "off":
            raise ValueError(
                f"asynchrony.mode={self.mode} trains on samples of older policies, but loss=policy_gradient "
                "is only right on-policy: set algorithm.importance.mode to truncate or mask, or mode sync"
            )
        if self.mode != "async":
            return
        if importance == "off" and (self.stale == "correct" or self.max_lag > 1):
            raise ValueError(
                f"asynchrony.mode=async with stale={self.stale} and max_lag={self.max_lag} trains on tokens "
                "of policies several updates old, which is only right with weights for it: set "
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
