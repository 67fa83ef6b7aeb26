from .composite import (
    RewardsConfig as RewardsConfig,
    gdpo_advantages as gdpo_advantages,
    load_rewards_config as load_rewards_config,
)
from .config_file import (
    ConfigModel as ConfigModel,
    apply_overrides as apply_overrides,
    load_config as load_config,
    read_yaml as read_yaml,
    validate as validate,
)
from .contract import (
    API_VERSION as API_VERSION,
    Component as Component,
    Form as Form,
    NoOptions as NoOptions,
    Register as Register,
    RewardDefinition as RewardDefinition,
    definition_of as definition_of,
    hookimpl as hookimpl,
    reward as reward,
)
from .discovery import (
    PluginInfo as PluginInfo,
    PluginStatus as PluginStatus,
    RewardCatalog as RewardCatalog,
    content_hash as content_hash,
    find_rewards as find_rewards,
)
from .environments.contract import (
    EnvironmentDefinition as EnvironmentDefinition,
    EnvironmentHost as EnvironmentHost,
    EnvironmentSession as EnvironmentSession,
    Step as Step,
    StepResult as StepResult,
    ToolDefinition as ToolDefinition,
    ToolError as ToolError,
    ToolSchema as ToolSchema,
    environment as environment,
    tool as tool,
)
from .rollout import (
    FunctionCall as FunctionCall,
    Message as Message,
    Rollout as Rollout,
    SamplerSettings as SamplerSettings,
    Segment as Segment,
    ToolCall as ToolCall,
    Turn as Turn,
    TurnOutcome as TurnOutcome,
    reference_text as reference_text,
)
from .score import (
    ComponentScore as ComponentScore,
    Score as Score,
    ScoredBatch as ScoredBatch,
    ScoredRollout as ScoredRollout,
    ScoreOutcome as ScoreOutcome,
    StepScore as StepScore,
    to_score as to_score,
)
from .scorer import Scorer as Scorer, ScoringSession as ScoringSession
from .statistics import (
    EPS as EPS,
    Moments as Moments,
    group_center as group_center,
    group_standardize as group_standardize,
    has_zero_variance as has_zero_variance,
    mean_and_std as mean_and_std,
)
