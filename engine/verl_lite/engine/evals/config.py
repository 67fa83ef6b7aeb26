"""The frozen configuration of `verl-lite eval`. Importing it never imports torch."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, NonNegativeInt, model_validator

from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.engine.config.cross_checks import check_turns
from verl_lite.engine.config.data import ChatConfig, DatasetConfig
from verl_lite.engine.config.model import ModelConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.errors import ConfigError
from verl_lite.plugins.composite.config import RewardsConfig, leaves
from verl_lite.plugins.config_file import apply_overrides, read_yaml, validate
from verl_lite.plugins.environments import EnvironmentConfig, ToolsConfig


class EvalConfig(RewardsConfig, ChatConfig):
    """What to measure, on which rows, with which rewards."""

    name: str = Field(default="eval", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the evaluation: its folder is runs/<name>."""
    seed: NonNegativeInt = 0
    """Seed of everything sampled."""
    model: ModelConfig | None = None
    """The model to measure; --model on the command line replaces it."""
    datasets: dict[str, DatasetConfig] = Field(min_length=1)
    """Data sets by their names in the results."""
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    """How answers are sampled: sampler, lengths, temperature."""
    environment: EnvironmentConfig | None = None
    """The environment that answers the model, turn by turn; unset: one completion per prompt."""
    tools: ToolsConfig = ()
    """Tools that the model may call: names of built-in or installed ones, or ./file.py:function."""
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    """How the evaluation uses Ray."""
    num_samples: NonNegativeInt = 0
    """Samples per prompt at rollout.temperature, for pass@k and majorities; 0: none."""
    greedy: bool = True
    """Whether each prompt also gets one greedy answer."""
    accuracy: str = ""
    """The reward that is at least `right_at` for right answers; unset: the first one."""
    right_at: float = 1.0
    """An answer is right when that reward gives at least this."""
    format: str = ""
    """The reward that is at least 1.0 for well-formed answers; "" for none."""
    answer_key: str = "extracted"
    """The detail of the accuracy reward's score that majorities count."""
    perplexity: str = ""
    """The column with the answer whose perplexity is measured; "" for none."""

    @property
    def accuracy_reward(self) -> str:
        """The reward that says whether an answer is right."""
        return self.accuracy or leaves(self.rewards)[0].path

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        check_turns(self.rollout, self.environment, self.tools)
        paths = [leaf.path for leaf in leaves(self.rewards)]
        for key, name in (("accuracy", self.accuracy_reward), ("format", self.format)):
            if name and name not in paths:
                raise ValueError(f"{key}={name!r} is not a reward of this config: {', '.join(paths)}")
        odd = [name for name in self.datasets if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)]
        if odd:
            raise ValueError(
                f"datasets: {odd[0]!r} becomes a file name: use letters, digits, '.', '_' and '-'"
            )
        if not self.greedy and not self.num_samples:
            raise ValueError("greedy: false and num_samples: 0 leave nothing to measure")
        return self


def load_eval_config(path: Path, overrides: list[str]) -> EvalConfig:
    """The eval config in `path`, or one for the held-out rows of the training config in `path`.

    With a training config, overrides may name keys of both kinds. Raises ConfigError for mistakes, and for a
    training config without data.held_out.
    """
    data = read_yaml(path)
    if "datasets" in apply_overrides(data, overrides):
        return validate(EvalConfig, apply_overrides(data, overrides), source=str(path))
    only_eval = EvalConfig.model_fields.keys() - TrainConfig.model_fields.keys()
    ours = [override for override in overrides if re.split(r"[.=]", override)[0] in only_eval]
    others = [override for override in overrides if override not in ours]
    train = validate(TrainConfig, apply_overrides(data, others), source=str(path))
    measured = dict(training_config(train, source=str(path)))
    return validate(EvalConfig, measured | apply_overrides({}, ours), source=str(path))


def training_config(train: TrainConfig, *, source: str = "the config") -> EvalConfig:
    """An eval config for a training config's held-out rows. Raises ConfigError when it has none."""
    if train.data.held_out is None:
        raise ConfigError(f"{source}: eval needs 'datasets', or the data.held_out of a training config")
    shared = ("name", "seed", "model", "rollout", "environment", "tools", "cluster", "rewards", "scoring")
    return EvalConfig(
        **{name: getattr(train, name) for name in shared},
        datasets={"held_out": train.data.held_out},
        chat_template=train.data.chat_template,
        template_kwargs=train.data.template_kwargs,
        date=train.data.date,
        accuracy=train.accuracy_reward,
        right_at=train.evaluation.right_at,
    )
