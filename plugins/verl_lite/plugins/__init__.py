"""Write, find, combine and run reward plugins. Importing this never imports torch.

What a reward is written with comes at once; what runs rewards is imported when it is first used.
"""

from typing import TYPE_CHECKING

from verl_lite.lazy import lazy_exports
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
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            ".composite": ("RewardsConfig", "gdpo_advantages", "load_rewards_config"),
            ".discovery": ("PluginInfo", "PluginStatus", "RewardCatalog", "find_rewards"),
            ".scorer": ("Scorer", "ScoringSession"),
        },
    )

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
