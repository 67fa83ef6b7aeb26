"""Several rewards as one: config, gates, schedules, policies, and the numbers about it."""

from verl_lite.plugins.composite.build import Composite, build_composite
from verl_lite.plugins.composite.combine import Combiner
from verl_lite.plugins.composite.config import (
    ComponentConfig,
    GroupConfig,
    RewardsConfig,
    ScoringConfig,
    load_rewards_config,
)
from verl_lite.plugins.composite.gdpo import gdpo_advantages
from verl_lite.plugins.composite.metrics import METRICS, batch_metrics
from verl_lite.plugins.composite.policies import CircuitBreaker
from verl_lite.plugins.composite.steps import Decode, steps_to_tokens, token_pieces

__all__ = [
    "METRICS",
    "CircuitBreaker",
    "Combiner",
    "ComponentConfig",
    "Composite",
    "Decode",
    "GroupConfig",
    "RewardsConfig",
    "ScoringConfig",
    "batch_metrics",
    "build_composite",
    "gdpo_advantages",
    "load_rewards_config",
    "steps_to_tokens",
    "token_pieces",
]
