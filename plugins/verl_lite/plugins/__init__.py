"""Write, find, combine and run reward plugins. Importing this never imports torch.

What a reward is written with comes at once; what runs rewards is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from verl_lite.plugins.composite import RewardsConfig, gdpo_advantages, load_rewards_config
    from verl_lite.plugins.discovery import PluginInfo, PluginStatus, RewardCatalog, find_rewards
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

_IMPORTED_WHEN_USED = {
    "PluginInfo": "discovery",
    "PluginStatus": "discovery",
    "RewardCatalog": "discovery",
    "RewardsConfig": "composite",
    "Scorer": "scorer",
    "ScoringSession": "scorer",
    "find_rewards": "discovery",
    "gdpo_advantages": "composite",
    "load_rewards_config": "composite",
}


def __getattr__(name: str) -> Any:
    module = _IMPORTED_WHEN_USED.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
