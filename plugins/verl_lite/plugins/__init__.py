"""Write, find, combine and run reward plugins. Importing this never imports torch."""

from verl_lite.plugins.contract import (
    API_VERSION,
    Component,
    RewardDefinition,
    hookimpl,
    reward,
)
from verl_lite.plugins.rollout import Message, Rollout, SamplerSettings
from verl_lite.plugins.score import (
    ComponentScore,
    Score,
    ScoredBatch,
    ScoredRollout,
    ScoreOutcome,
    StepScore,
)

__all__ = [
    "API_VERSION",
    "Component",
    "ComponentScore",
    "Message",
    "RewardDefinition",
    "Rollout",
    "SamplerSettings",
    "Score",
    "ScoreOutcome",
    "ScoredBatch",
    "ScoredRollout",
    "StepScore",
    "hookimpl",
    "reward",
]
