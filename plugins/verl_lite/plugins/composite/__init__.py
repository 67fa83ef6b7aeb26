"""Several rewards as one: config, gates, schedules, policies, and the numbers about it."""

from verl_lite.plugins.composite.build import Composite, build_composite
from verl_lite.plugins.composite.combine import Combiner
from verl_lite.plugins.composite.config import (
    ComponentConfig,
    GroupConfig,
    Leaf,
    RewardNode,
    RewardsConfig,
    ScoringConfig,
    leaves,
    load_rewards_config,
)
from verl_lite.plugins.composite.gate import Gate, parse_gate
from verl_lite.plugins.composite.gdpo import gdpo_advantages
from verl_lite.plugins.composite.metrics import METRICS, batch_metrics
from verl_lite.plugins.composite.policies import CircuitBreaker
from verl_lite.plugins.composite.process_rewards import (
    Decode,
    even_spans,
    spans_from_pieces,
    steps_to_tokens,
    token_pieces,
)
from verl_lite.plugins.composite.schedule import Schedule, Weight, weight_at, weights_of

__all__ = [
    "METRICS",
    "CircuitBreaker",
    "Combiner",
    "ComponentConfig",
    "Composite",
    "Decode",
    "Gate",
    "GroupConfig",
    "Leaf",
    "RewardNode",
    "RewardsConfig",
    "Schedule",
    "ScoringConfig",
    "Weight",
    "batch_metrics",
    "build_composite",
    "even_spans",
    "gdpo_advantages",
    "leaves",
    "load_rewards_config",
    "parse_gate",
    "spans_from_pieces",
    "steps_to_tokens",
    "token_pieces",
    "weight_at",
    "weights_of",
]
