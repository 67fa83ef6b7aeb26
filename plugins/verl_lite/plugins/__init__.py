"""Write, find, combine and run reward plugins. Importing this never imports torch.

Names for writing rewards are imported at once, those for running them when they are first used.
"""

from typing import TYPE_CHECKING

from verl_lite.lazy import lazy_exports
from verl_lite.plugins.contract import (
    API_VERSION,
    Component,
    Form,
    NoOptions,
    RewardDefinition,
    definition_of,
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
    to_score,
)

if TYPE_CHECKING:
    from verl_lite.plugins.composite import RewardsConfig, gdpo_advantages, load_rewards_config
    from verl_lite.plugins.config_file import ConfigModel, apply_overrides, load_config, read_yaml, validate
    from verl_lite.plugins.discovery import (
        PluginInfo,
        PluginStatus,
        RewardCatalog,
        content_hash,
        find_rewards,
    )
    from verl_lite.plugins.scorer import Scorer, ScoringSession
    from verl_lite.plugins.statistics import (
        EPS,
        Moments,
        group_center,
        group_standardize,
        has_zero_variance,
        mean_and_std,
    )
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            ".composite": ("RewardsConfig", "gdpo_advantages", "load_rewards_config"),
            ".config_file": ("ConfigModel", "apply_overrides", "load_config", "read_yaml", "validate"),
            ".discovery": ("PluginInfo", "PluginStatus", "RewardCatalog", "content_hash", "find_rewards"),
            ".scorer": ("Scorer", "ScoringSession"),
            ".statistics": (
                "EPS",
                "Moments",
                "group_center",
                "group_standardize",
                "has_zero_variance",
                "mean_and_std",
            ),
        },
    )

__all__ = [
    "API_VERSION",
    "EPS",
    "Component",
    "ComponentScore",
    "ConfigModel",
    "Form",
    "Message",
    "Moments",
    "NoOptions",
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
    "apply_overrides",
    "content_hash",
    "definition_of",
    "find_rewards",
    "gdpo_advantages",
    "group_center",
    "group_standardize",
    "has_zero_variance",
    "hookimpl",
    "load_config",
    "load_rewards_config",
    "mean_and_std",
    "read_yaml",
    "reward",
    "to_score",
    "validate",
]
