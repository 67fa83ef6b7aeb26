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
    max_restarts     how often a lost engine, reward worker or learner is replaced before the run stops
    """

    address: str | None = None
    start_timeout_s: PositiveFloat = 180.0
    call_timeout_s: PositiveFloat = 1800.0
    max_restarts: NonNegativeInt = 3
    rewards: RewardActorsConfig = Field(default_factory=RewardActorsConfig)


class AsynchronyConfig(ConfigModel):
    """How far sampling runs ahead of training.

    mode     sync: sample, train, sync, in turn. one_ahead: the next batch is sampled while this one
             trains, by the policy before the update. async: engines never wait; weights reach
             them in the middle of completions, whose tokens carry the version that sampled them
    max_lag  updates between the version that sampled a token and the one that trains on it (async)
    stale    what becomes of a completion beyond max_lag: drop it, or train with importance weights
    """

    mode: Literal["sync", "one_ahead", "async"] = "sync"
    max_lag: PositiveInt = 1
    stale: Literal["correct", "drop"] = "correct"
