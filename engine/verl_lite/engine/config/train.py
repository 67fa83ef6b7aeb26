"""The frozen configuration tree of a training run. Importing it never imports torch.

    name, seed, deterministic, steps   model   data   sft   rollout   environment + tools   rewards + scoring
    algorithm   demonstrations   distillation   learner   asynchrony   cluster   evaluation   checkpoints
    monitors   logging

`rewards` and `scoring` belong to the plugins; larger sections have their own files. Checks across
fields run here, before anything loads; names carry units.
"""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.config.cluster import AsynchronyConfig, ClusterConfig
from verl_lite.engine.config.cross_checks import (
    check_address,
    check_best_metric,
    check_models,
    check_turns,
    check_updates,
)
from verl_lite.engine.config.data import DataConfig
from verl_lite.engine.config.distillation import DistillationConfig
from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.config.lora_sync import reason_to_merge
from verl_lite.engine.config.monitors import MonitorsConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.config.sft import DemonstrationsConfig, SFTConfig
from verl_lite.plugins.composite.config import RewardNode, RewardsConfig, leaves
from verl_lite.plugins.config_file import ConfigModel, load_config as load_config
from verl_lite.plugins.environments import EnvironmentConfig, ToolsConfig

Dtype = Literal["float32", "bfloat16", "float16"]


class TinyModelConfig(ConfigModel):
    """The size of the generated Qwen3; the defaults give 2.4 million parameters."""

    hidden_size: PositiveInt = 256
    """Width of the residual stream."""
    num_layers: PositiveInt = 4
    """Number of decoder layers."""
    num_heads: PositiveInt = 8
    """Number of query heads; hidden_size / num_heads is the head size (vLLM on the CPU: 32 or more)."""
    num_kv_heads: PositiveInt = 4
    """Number of key and value heads."""
    intermediate_size: PositiveInt = 512
    """Width of the feed-forward layers."""
    max_context_tokens: PositiveInt = 512
    """Longest prompt and completion together, in tokens."""


def is_gguf(path: str | None) -> bool:
    """Whether `path` names a GGUF file."""
    return path is not None and path.lower().endswith(".gguf")


class ModelConfig(ConfigModel):
    """Where the policy comes from: a hub id, folder or .gguf file in `path`, or `tiny` to generate one.

    A GGUF file is de-quantised once into the run's folder. `dtype` is the type of the learner's weights.
    """

    path: str | None = None
    """A model folder, a hub id, or a .gguf file, which is de-quantised once into the run's folder."""
    tiny: TinyModelConfig | None = None
    """Generate a small Qwen3 with a character tokenizer instead; {} takes the defaults."""
    dtype: Dtype = "float32"
    """Type of the learner's weights. float32 keeps small updates; bfloat16 halves the memory and needs a
    larger learning rate to move at all."""

    @model_validator(mode="after")
    def _one_source(self) -> "ModelConfig":
        if (self.path is None) == (self.tiny is None):
            raise ValueError("expected exactly one of 'path' (a hub id, a folder or a .gguf file) and 'tiny'")
        return self

    @property
    def is_written(self) -> bool:
        """Whether a run writes the model into its own folder before it trains."""
        return self.tiny is not None or is_gguf(self.path)


class EvaluationConfig(ConfigModel):
    """Greedy accuracy on data.held_out: before and after RL, and every `every_steps` steps (0: no more).

    A row is right when the reward named `accuracy` (unset: the first one) gives at least `right_at`.
    `weights` are the policy's, or the moving average's of algorithm.kl.reference: ema.
    """

    every_steps: NonNegativeInt = 0
    """Steps between measurements of greedy accuracy on data.held_out; 0: only before and after RL."""
    accuracy: str = ""
    """The reward whose value says whether a row is right; unset: the first one."""
    right_at: float = 1.0
    """A row is right when that reward gives at least this."""
    weights: Literal["policy", "ema"] = "policy"
    """Whose weights are measured: the policy's, or the moving average's of algorithm.kl.reference: ema."""


class CheckpointConfig(ConfigModel):
    """When a stage writes checkpoints: every `every_steps` steps, at Ctrl-C, and at the end of RL."""

    every_steps: NonNegativeInt = 50
    """Steps between checkpoints; 0: none on the way (one is written at Ctrl-C and at the end of RL all the
    same)."""
    keep: NonNegativeInt = 2
    """Number of newest checkpoints to keep until the stage's model is saved; 0: all."""
    keep_every_steps: NonNegativeInt = 0
    """Also keep checkpoints of steps divisible by this number; 0: none."""
    keep_best: str = ""
    """Also keep the best checkpoint by this metric: evaluation/accuracy for RL, sft/validation_loss for SFT,
    held_out/accuracy for DPO and reward models."""
    keep_best_lowest: bool = False
    """The lowest value of keep_best is the best, as for a loss."""


class LoggingConfig(ConfigModel):
    """Trackers of accelerate.tracking by name; metrics.jsonl is always written.

    Rollout records are written every `rollouts_every_steps` steps (0: never). Trackers get a table of the
    best and worst rollouts, `samples` in total, every `samples_every_steps` steps (0: never).
    """

    trackers: tuple[str, ...] = ("tensorboard",)
    """Trackers of accelerate.tracking by name (tensorboard, wandb, mlflow, ...); metrics.jsonl is always
    written."""
    rollouts_every_steps: NonNegativeInt = 1
    """Steps between rollout records (Parquet, all samples with every reward's score); 0: never."""
    samples: PositiveInt = 4
    """Rows in the trackers' table of the best and worst rollouts."""
    samples_every_steps: NonNegativeInt = 10
    """Steps between these tables; 0: never."""


class TrainConfig(RewardsConfig):
    """All settings of a training run. Without RL (`steps: 0`) it needs no rewards.

    `deterministic` allows only bitwise repeatable kernels, and one thread on the CPU.
    """

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

    @property
    def accuracy_reward(self) -> str:
        """The path of the reward that decides whether a held-out answer is right; "" without rewards."""
        found = leaves(self.rewards)
        return self.evaluation.accuracy or (found[0].path if found else "")

    @property
    def format_reward(self) -> str:
        """The path of the reward whose mean is the format compliance; "" without one."""
        named = self.sft.validation.format if self.sft.validation is not None else ""
        paths = [leaf.path for leaf in leaves(self.rewards)]
        return named or ("format" if "format" in paths else "")

    @property
    def reason_to_merge(self) -> str:
        """The setting that rules out sending vLLM only LoRA adapters; "" if none does."""
        return reason_to_merge(
            self.learner,
            sampler=self.rollout.sampler,
            weight_transfer=self.rollout.weight_transfer,
            model_dtype=self.model.dtype,
            vllm_dtype=self.rollout.vllm.dtype,
        )

    def _check_best(self) -> None:
        best, validation = self.checkpoints.keep_best, self.sft.validation
        check_best_metric(best)
        if best.startswith("evaluation/") and not self.evaluation.every_steps:
            raise ValueError(
                f"checkpoints.keep_best={best!r} is only measured with evaluation.every_steps above 0"
            )
        measured_in_sft = ("sft/validation_loss", "sft/perplexity", "sft/answers/")
        if best.startswith(measured_in_sft) and (validation is None or not validation.every_steps):
            raise ValueError(
                f"checkpoints.keep_best={best!r} is only measured with sft.validation.every_steps above 0"
            )

    @model_validator(mode="after")
    def _check_placement(self) -> "TrainConfig":
        check_address(self.cluster, ranks=self.learner.num_ranks > 1, engines=self.rollout.is_placed_by_ray)
        rollout = self.rollout
        hands_out = rollout.is_placed_by_ray or rollout.sampler == "vllm-server"
        if rollout.sequences_in_flight is not None and not hands_out:
            raise ValueError(
                f"rollout.sequences_in_flight={rollout.sequences_in_flight} is for Ray's engines or a "
                "server; the engine of this run is in the trainer's process and gets all sequences at once: "
                "leave it out, or set rollout.placement to disaggregated"
            )
        return self

    @model_validator(mode="after")
    def _check_across(self) -> "TrainConfig":
        self._check_rewards()
        self._check_replay()
        if self.evaluation.every_steps and self.data.held_out is None:
            raise ValueError(
                f"evaluation.every_steps={self.evaluation.every_steps} needs data.held_out; "
                "name the rows or set it to 0"
            )
        if self.evaluation.weights == "ema":
            self._check_ema()
        self._check_best()
        self.algorithm.check_rollout(
            num_samples=self.rollout.num_samples, top_p=self.rollout.top_p, top_k=self.rollout.top_k
        )
        check_models(self.algorithm, self.learner)
        check_turns(self.rollout, self.environment, self.tools)
        self.distillation.check_rollout(
            temperature=self.rollout.temperature,
            max_lag=self.asynchrony.largest_lag,
            num_ranks=self.learner.num_ranks,
        )
        check_updates(
            self.algorithm,
            num_prompts=self.rollout.num_prompts,
            max_new_tokens=self.rollout.max_new_tokens,
        )
        self.asynchrony.check(
            advantage=self.algorithm.advantage,
            loss=self.algorithm.loss,
            is_corrected=self.algorithm.importance.mode != "off",
            dynamic_sampling=self.algorithm.dynamic_sampling,
            takes_weights_anytime=self.rollout.is_placed_by_ray,
        )
        return self

    def _check_ema(self) -> None:
        why = ""
        if self.algorithm.kl.reference != "ema":
            why = "there is no moving average: set algorithm.kl.reference to ema"
        elif self.learner.num_ranks > 1:
            why = f"learner.num_ranks={self.learner.num_ranks} keep it in shards: use one rank"
        elif self.asynchrony.mode != "sync":
            why = f"asynchrony.mode={self.asynchrony.mode} samples meanwhile: use sync"
        elif self.learner.lora is not None and self.rollout.lora_sync != "merged":
            why = "the sampler takes whole weights then: set rollout.lora_sync to merged"
        if why:
            raise ValueError(f"evaluation.weights=ema, but {why}")

    def _check_replay(self) -> None:
        if self.data.curriculum is None or self.data.curriculum.replay is None:
            return
        where = "data.curriculum.replay"
        if self.algorithm.importance.mode == "off":
            raise ValueError(
                f"{where} trains on samples of older policies, which is only right with importance "
                "weights: set algorithm.importance.mode to truncate or mask"
            )
        if self.asynchrony.mode == "async":
            raise ValueError(
                f"{where} with asynchrony.mode=async: batches are cut from a stream there; use one_ahead"
            )
        if self.algorithm.advantage in ("gae", "reinforce_pp", "raft", "rft"):
            raise ValueError(
                f"{where} replays groups, but advantage={self.algorithm.advantage} does not compare the "
                "samples of a group: use grpo or another estimator of groups"
            )

    def _check_rewards(self) -> None:
        paths = [leaf.path for leaf in leaves(self.rewards)]
        if self.steps and not paths:
            raise ValueError(f"steps={self.steps} of RL need rewards: name at least one, or set steps to 0")
        if self.accuracy_reward and self.accuracy_reward not in paths:
            raise ValueError(
                f"evaluation.accuracy={self.accuracy_reward!r} is not a reward of this config: "
                f"expected one of {', '.join(paths)}"
            )
        if self.format_reward and self.format_reward not in paths:
            raise ValueError(
                f"sft.validation.format={self.format_reward!r} is not a reward of this config: "
                f"expected one of {', '.join(paths) or 'none, there are no rewards'}"
            )
        if self.sft.validation is not None and self.sft.validation.min_format and not self.format_reward:
            raise ValueError(
                "sft.validation.min_format needs a reward that measures it: name it in sft.validation.format"
            )

    @model_validator(mode="after")
    def _check_sampling(self) -> "TrainConfig":
        if self.rollout.lora_sync == "adapters" and self.reason_to_merge:
            raise ValueError(
                f"rollout.lora_sync=adapters is not possible with {self.reason_to_merge}: set it to auto"
            )
        if self.rollout.weight_transfer != "object_store" and self.learner.num_ranks > 1:
            raise ValueError(
                f"rollout.weight_transfer={self.rollout.weight_transfer} sends from one learner process, but "
                f"learner.num_ranks={self.learner.num_ranks}: use object_store"
            )
        if (
            self.rollout.vllm.quantization is not None
            and self.algorithm.importance.mode == "off"
            and self.steps
        ):
            raise ValueError(
                f"rollout.vllm.quantization={self.rollout.vllm.quantization} samples from a coarser policy "
                "than the learner's, but algorithm.importance.mode=off trains as if they were equal: set it "
                "to truncate or mask"
            )
        if self.rollout.placement == "colocated" and self.asynchrony.mode != "sync":
            raise ValueError(
                f"asynchrony.mode={self.asynchrony.mode} with rollout.placement=colocated: engines on the "
                "learner's GPUs sleep during updates: set rollout.placement: disaggregated, or mode sync"
            )
        if (self.scoring.combine == "gdpo") != (self.algorithm.advantage == "gdpo"):
            raise ValueError(
                f"scoring.combine={self.scoring.combine} but algorithm.advantage={self.algorithm.advantage}: "
                "under GDPO it is the advantage that combines the rewards; set both to gdpo or neither"
            )
        tiny = self.model.tiny
        if tiny is not None and self.rollout.context_tokens > tiny.max_context_tokens:
            raise ValueError(
                f"rollout.max_prompt_tokens={self.rollout.max_prompt_tokens} + rollout.max_new_tokens="
                f"{self.rollout.max_new_tokens} is more than model.tiny.max_context_tokens="
                f"{tiny.max_context_tokens}: lower one of the first two"
            )
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a training config, for editors."""
    return TrainConfig.model_json_schema()
