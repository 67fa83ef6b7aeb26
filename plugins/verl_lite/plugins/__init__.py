"""Write, find, combine and run reward plugins. Importing this never imports torch."""

from verl_lite.plugins.composite import RewardsConfig, gdpo_advantages, load_rewards_config
from verl_lite.plugins.contract import (
    API_VERSION,
    Component,
    RewardDefinition,
    hookimpl,
    reward,
)
from verl_lite.plugins.discovery import PluginInfo, PluginStatus, RewardCatalog, find_rewards
from verl_lite.plugins.rollout import Message, Rollout, SamplerSettings
from verl_lite.plugins.score import (
    ComponentScore,
    Score,
    ScoredBatch,
    ScoredRollout,
    ScoreOutcome,
    StepScore,
)
from verl_lite.plugins.scorer import Scorer, ScoringSession

__all__ = [
    "API_VERSION",
    "Component",
    "ComponentScore",
    "Message",
    "PluginInfo",
    "PluginStatus",
    "RewardCatalog",
    "RewardDefinition",
    "RewardsConfig",
    "Rollout",
    "SamplerSettings",
    "Score",
    "ScoreOutcome",
    "ScoredBatch",
    "ScoredRollout",
    "Scorer",
    "ScoringSession",
    "StepScore",
    "find_rewards",
    "gdpo_advantages",
    "hookimpl",
    "load_rewards_config",
    "reward",
]
