from .algorithm import (
    AlgorithmConfig as AlgorithmConfig,
    CriticConfig as CriticConfig,
    KLConfig as KLConfig,
    OverlongConfig as OverlongConfig,
)
from .cluster import ClusterConfig as ClusterConfig, RewardActorsConfig as RewardActorsConfig
from .data import DatasetConfig as DatasetConfig, TrainSourceConfig as TrainSourceConfig
from .importance import ImportanceConfig as ImportanceConfig
from .learner import (
    LearnerConfig as LearnerConfig,
    LoraConfig as LoraConfig,
    OptimizerConfig as OptimizerConfig,
)
from .model import ModelConfig as ModelConfig, TinyModelConfig as TinyModelConfig
from .monitors import MonitorsConfig as MonitorsConfig
from .records import CheckpointConfig as CheckpointConfig
from .rollout import RolloutConfig as RolloutConfig, VllmConfig as VllmConfig
from .sft import SFTConfig as SFTConfig, SFTRowsConfig as SFTRowsConfig
from .train import (
    TrainConfig as TrainConfig,
    json_schema as json_schema,
    load_config as load_config,
)
