"""The frozen configuration tree of a training run. Importing it never imports torch.

    name, seed, deterministic, steps   model   data   sft   rollout   environment + tools   rewards + scoring
    algorithm   demonstrations   distillation   learner   asynchrony   cluster   evaluation   checkpoints
    monitors   logging

`rewards` and `scoring` belong to the plugins; each section has a file. Names carry units. Checks across
sections are in train.py.
"""

from pydantic import Field, NonNegativeInt

from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.config.cluster import AsynchronyConfig, ClusterConfig
from verl_lite.engine.config.data import DataConfig
from verl_lite.engine.config.distillation import DistillationConfig
from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.config.model import ModelConfig
from verl_lite.engine.config.monitors import MonitorsConfig
from verl_lite.engine.config.records import CheckpointConfig, EvaluationConfig, LoggingConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.config.sft import DemonstrationsConfig, SFTConfig
from verl_lite.plugins.composite.config import RewardNode, RewardsConfig
from verl_lite.plugins.environments import EnvironmentConfig, ToolsConfig


class TrainSettings(RewardsConfig):
    """All settings of a training run. Without RL (`steps: 0`) it needs no rewards."""

    rewards: dict[str, RewardNode] = Field(default_factory=dict)
    """The rewards by name, each with a weight; their combination is what training maximises. May be left out
    only with steps: 0."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name: its folder is runs/<name>, and trackers show it."""
    seed: NonNegativeInt = 0
    """Seed of everything random in the run. Change it to see how much of a result is chance."""
    deterministic: bool = False
    """Allow only kernels whose results repeat bit by bit, and one thread on the CPU. Slower; for debugging
    and exact comparisons."""
    steps: NonNegativeInt
    """Number of RL steps; 0 runs only the supervised warm-up."""
    model: ModelConfig
    """Where the policy comes from."""
    data: DataConfig
    """The data sets, and how the chat template shows their rows."""
    sft: SFTConfig = Field(default_factory=SFTConfig)
    """The supervised warm-up before RL; off by default."""
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    """How completions are sampled: sampler, batch size, lengths, engines."""
    environment: EnvironmentConfig | None = None
    """The environment that answers the model, turn by turn; unset: one completion per prompt."""
    tools: ToolsConfig = ()
    """Tools that the model may call: names of built-in or installed ones, or ./file.py:function."""
    algorithm: AlgorithmConfig = Field(default_factory=AlgorithmConfig)
    """The advantage estimator, the policy loss and their options."""
    demonstrations: DemonstrationsConfig | None = None
    """A supervised term on demonstrations in every RL step; unset: none."""
    distillation: DistillationConfig = Field(default_factory=DistillationConfig)
    """Teachers whose token probabilities the policy learns on its own rollouts."""
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    """How an update is computed: optimiser, precision, memory, ranks, LoRA."""
    asynchrony: AsynchronyConfig = Field(default_factory=AsynchronyConfig)
    """How far sampling runs ahead of training."""
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    """How the run uses Ray; without engines, ranks or rewards placed by Ray it starts none."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """How and when held-out accuracy is measured."""
    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """When checkpoints are written and which are kept."""
    monitors: MonitorsConfig = Field(default_factory=MonitorsConfig)
    """Thresholds of the warnings about the run's health, and what a collapse does."""
    logging: LoggingConfig = Field(default_factory=LoggingConfig)
    """Trackers, rollout records and sample tables."""
