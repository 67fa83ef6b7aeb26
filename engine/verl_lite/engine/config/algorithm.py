"""The `algorithm` and `learner` sections of the config, and what they refuse together.

Every refusal gives its reason, before anything is loaded.
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from verl_lite.engine.config.importance import ImportanceConfig
from verl_lite.plugins.config_file import ConfigModel

AdvantageName = Literal[
    "grpo", "dr_grpo", "rloo", "maxrl", "reinforce_pp", "reinforce_pp_baseline", "gae", "gdpo", "process",
    "raft", "rft", "none",
]  # fmt: skip
PolicyLossName = Literal["ppo_clip", "gspo", "cispo", "policy_gradient", "sapo", "gmpo", "dppo_tv", "dppo_kl"]
ParallelName = Literal["fsdp", "replicated"]
AggregateName = Literal["token_mean", "sequence_mean", "sequence_sum_norm"]
GROUP_ESTIMATORS = ("grpo", "dr_grpo", "rloo", "maxrl", "reinforce_pp_baseline", "gdpo", "process", "raft")
OWN_SAMPLES = ("raft", "rft")  # cross-entropy on the policy's own samples
SEQUENCE_LOSSES = ("gspo", "gmpo")  # one ratio per sequence
CLIPS: Mapping[str, Mapping[str, float]] = {  # where the default is not 0.2
    "cispo": {"clip_low": 1.0},
    "gmpo": {"clip_low": 0.4, "clip_high": 0.4},
    "dppo_kl": {"clip_low": 0.05, "clip_high": 0.05},
}


class KLConfig(ConfigModel):
    """KL penalty towards the reference policy. At coefficient 0 no reference is loaded."""

    coefficient: float = Field(default=0.0, ge=0)
    estimator: Literal["k1", "k2", "k3"] = "k3"
    placement: Literal["loss", "reward"] = "loss"
    reference: Literal["copy", "offload", "adapter_off", "ema", "none"] = "copy"
    ema_decay: float = Field(default=0.99, ge=0, lt=1)  # ema: how much of the reference a step keeps
    target: float | None = Field(
        default=None, gt=0
    )  # makes the coefficient adaptive: KL per completion, nats
    horizon_samples: int = Field(default=10_000, gt=0)
    ratio_weighted: bool = False  # k1, k3: multiply by the ratio, for the gradient of KL(policy || reference)

    @property
    def in_reward(self) -> bool:
        """Whether the KL is subtracted from each token's reward."""
        return self.coefficient > 0 and self.placement == "reward"

    @property
    def in_loss(self) -> bool:
        """Whether the loss has a KL term."""
        return self.coefficient > 0 and self.placement == "loss"

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.coefficient > 0 and self.reference == "none":
            raise ValueError(
                f"kl.coefficient={self.coefficient} needs a reference policy to compare with, but "
                "kl.reference=none: choose copy, offload, adapter_off or ema, or set the coefficient to 0"
            )
        if self.target is not None and self.coefficient == 0:
            raise ValueError(
                "kl.target makes the coefficient adaptive, but it multiplies the coefficient and "
                "0 stays 0: set kl.coefficient to a start value such as 0.1, or drop kl.target"
            )
        if self.coefficient > 0:
            self._check_gradient()
        return self

    def _check_gradient(self) -> None:
        if self.placement == "reward" and self.ratio_weighted:
            raise ValueError(
                "kl.ratio_weighted is for a KL in the loss; a KL in the reward has no gradient to weigh: "
                "leave it out, or set kl.placement=loss"
            )
        if self.placement == "loss" and self.estimator == "k1" and not self.ratio_weighted:
            raise ValueError(
                "kl.estimator=k1 in the loss has a gradient whose expectation is 0, so it would not "
                "pull towards the reference: use k2 or k3 in the loss, set kl.ratio_weighted, or "
                "kl.placement=reward"
            )
        if self.estimator == "k2" and self.ratio_weighted:
            raise ValueError(
                "kl.ratio_weighted with kl.estimator=k2: the gradient of k2 itself is that of KL(policy || "
                "reference), and times the ratio it no longer is: leave one of the two out, or use k1 or k3"
            )


class EntropyConfig(ConfigModel):
    """Keep the policy's entropy up; `entropy_bonus` is what the adaptive bonus starts from.

    target      nats per token: below it the bonus grows by `step` per update, above it falls, never below 0
    covariance  clip: no gradient for `fraction` of the tokens, taken from those whose covariance of
                log-probability and advantage is within low .. high; kl: `coefficient` x |log p - log p_old|
                for the `fraction` with the highest one
    """

    target: float | None = Field(default=None, gt=0)
    step: float = Field(default=1e-3, gt=0)
    max_bonus: float = Field(default=0.1, gt=0)
    covariance: Literal["off", "clip", "kl"] = "off"
    fraction: float = Field(default=2e-4, gt=0, le=1)
    low: float = 1.0
    high: float = 5.0
    coefficient: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"entropy.low={self.low} must be below entropy.high={self.high}")
        return self


class OverlongConfig(ConfigModel):
    """How completions at or near the length limit are treated."""

    mode: Literal["keep", "mask", "shape"] = "keep"
    buffer_tokens: int = Field(default=0, ge=0)  # shape: the penalty grows linearly over the last tokens
    penalty: float = Field(default=1.0, ge=0)  # shape: subtracted from the reward at the limit

    @model_validator(mode="after")
    def _has_buffer(self) -> Self:
        if self.mode == "shape" and self.buffer_tokens == 0:
            raise ValueError(
                "overlong.mode=shape needs overlong.buffer_tokens above 0 to grow the penalty over"
            )
        return self


class CriticConfig(ConfigModel):
    """The value model of PPO."""

    model: str = ""  # a model folder or hub id; empty: the policy's initial weights
    learning_rate: float = Field(default=1e-5, gt=0)
    value_clip: float | None = Field(default=0.2, gt=0)
    warmup_steps: int = Field(default=0, ge=0)  # steps in which only the critic learns
    epochs: int = Field(default=1, ge=1)


class AlgorithmConfig(ConfigModel):
    """The advantage estimator, the policy loss and their options.

    The ratio is clipped to [1 - clip_low, 1 + clip_high], under gmpo its logarithm to [-clip_low, clip_high];
    dppo bounds the change of a token's probability (dppo_tv) or a KL (dppo_kl). CLIPS has other defaults.
    """

    advantage: AdvantageName = "grpo"
    loss: PolicyLossName = "ppo_clip"
    aggregate: AggregateName = "token_mean"
    clip_low: float = Field(default=0.2, ge=0)
    clip_high: float = Field(default=0.2, ge=0)
    dual_clip: float | None = Field(default=None, gt=1)
    ratio_cap: float = Field(default=20.0, ge=1)  # dppo: the largest ratio
    gate_positive: float = Field(default=1.0, gt=0)  # sapo: steepness of the gate for positive advantages
    gate_negative: float = Field(default=1.05, gt=0)  # sapo: for negative ones
    right_at: float = 1.0  # rft: the smallest reward of a sample that is imitated
    norm_tokens: int | None = Field(default=None, gt=0)  # the constant of sequence_sum_norm
    epochs: int = Field(default=1, ge=1)
    mini_batches: int = Field(default=1, ge=1)
    entropy_bonus: float = 0.0
    entropy: EntropyConfig = EntropyConfig()
    whiten: bool = False  # standardise the advantages over the whole batch's tokens
    gamma: float = Field(default=1.0, ge=0, le=1)
    lam: float = Field(default=1.0, ge=0, le=1)
    gae_over: Literal["tokens", "turns"] = "tokens"  # what gamma and lam discount
    dynamic_sampling: bool = False
    max_refills: int = Field(default=3, ge=1)  # dynamic sampling: extra rounds of prompts per step
    kl: KLConfig = KLConfig()
    importance: ImportanceConfig = ImportanceConfig()
    overlong: OverlongConfig = OverlongConfig()
    critic: CriticConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_clips(cls, data: object) -> object:
        return {**CLIPS.get(str(data.get("loss")), {}), **data} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        self._check_critic()
        self._check_ratio()
        self._check_estimator()
        return self

    def _check_critic(self) -> None:
        if self.critic is not None and self.advantage != "gae":
            raise ValueError(
                f"algorithm.critic is set but advantage={self.advantage} never asks a critic: "
                "set advantage: gae, or drop the critic section"
            )
        if self.gae_over == "turns" and self.advantage != "gae":
            raise ValueError(f"gae_over=turns is for advantage: gae, but advantage={self.advantage}")
        if self.advantage == "gae" and self.critic is None:
            raise ValueError("advantage=gae needs values: add an algorithm.critic section ({} for defaults)")

    def _check_ratio(self) -> None:
        if self.loss in SEQUENCE_LOSSES and self.aggregate != "sequence_mean":
            raise ValueError(
                f"loss={self.loss} has one ratio per sequence; aggregate={self.aggregate} would weigh it by "
                "the sequence's length and bias it: use aggregate: sequence_mean"
            )
        if self.loss == "policy_gradient" and self.epochs * self.mini_batches > 1:
            raise ValueError(
                f"loss=policy_gradient has no ratio, so it is only right on-policy, but epochs="
                f"{self.epochs} x mini_batches={self.mini_batches} makes several updates on one batch: "
                "set both to 1, or use loss: ppo_clip"
            )
        if self.entropy.covariance == "kl" and self.epochs * self.mini_batches == 1:
            raise ValueError(
                "entropy.covariance=kl penalises |log p - log p_old|, whose gradient is 0 in the only update "
                "on a batch: set epochs or mini_batches above 1, or covariance: clip"
            )
        if self.dual_clip is not None and self.loss != "ppo_clip":
            raise ValueError(f"dual_clip bounds the ratio of ppo_clip; loss={self.loss} does not use it")
        if self.aggregate == "sequence_sum_norm" and self.norm_tokens is None:
            raise ValueError(
                "aggregate=sequence_sum_norm divides by a constant: set norm_tokens "
                "(usually rollout.max_new_tokens)"
            )

    def _check_estimator(self) -> None:
        if self.advantage == "dr_grpo" and self.aggregate == "sequence_mean":
            raise ValueError(
                "advantage=dr_grpo removes the length bias that aggregate=sequence_mean brings back: "
                "use sequence_sum_norm (the paper's) or token_mean"
            )
        if self.kl.in_reward and self.advantage not in ("gae", "reinforce_pp"):
            raise ValueError(
                f"kl.placement=reward gives a penalty per token, which advantage={self.advantage} (one "
                "value per completion) cannot place: use gae or reinforce_pp, or kl.placement: loss"
            )
        if self.advantage in (*OWN_SAMPLES, "none") and self.whiten:
            raise ValueError(f"whiten standardises advantages, but advantage={self.advantage} has none")
        if self.advantage == "gdpo" and self.overlong.mode == "shape":
            raise ValueError(
                "overlong.mode=shape changes the summed reward, which advantage=gdpo does not use: "
                "make the penalty a separate reward (length), or use overlong.mode: mask"
            )
        if self.dynamic_sampling and self.advantage not in GROUP_ESTIMATORS:
            raise ValueError(
                f"dynamic_sampling drops groups without variance, but advantage={self.advantage} "
                "has no groups"
            )

    def check_rollout(self, *, num_samples: int, top_p: float = 1.0, top_k: int = 0) -> None:
        """Raise ValueError, with the reason, if the rollout section contradicts the algorithm."""
        if self.advantage in GROUP_ESTIMATORS and num_samples < 2:
            raise ValueError(
                f"rollout.num_samples={num_samples}: advantage={self.advantage} compares the samples of one "
                "prompt, and a group of one always gives 0; use at least 2, or advantage: reinforce_pp"
            )
        truncated = top_p < 1.0 or top_k > 0
        ratios = self.importance.mode != "off" or self.epochs * self.mini_batches > 1
        if truncated and ratios:
            raise ValueError(
                f"rollout.top_p={top_p}, top_k={top_k} sample from a truncated distribution, but the "
                "importance ratios assume the full one: sample with top_p: 1 and top_k: 0, or set "
                "importance.mode: off, epochs: 1 and mini_batches: 1"
            )


class OptimizerConfig(ConfigModel):
    """AdamW or Muon, its schedule and its guards.

    name  muon: torch's, for the policy's hidden matrices in RL; embeddings, head, norms and biases have AdamW
    """

    name: Literal["adamw", "muon"] = "adamw"
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    learning_rate: float = Field(default=1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "cosine"  # wsd: warmup, stable, decay
    warmup_steps: int = Field(default=0, ge=0)
    decay_fraction: float = Field(default=0.2, gt=0, le=1)  # wsd: the fraction of steps in the decay phase
    min_lr_fraction: float = Field(default=0.1, ge=0, le=1)
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    bits: Literal[8, 32] = 32
    offload: bool = False  # keep the moments in CPU memory
    max_bad_steps: int = Field(default=5, ge=1)  # steps with nan or inf after which the run stops

    @model_validator(mode="after")
    def _decaying(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(
                f"betas={list(self.betas)}: expected two numbers of at least 0 and below 1, the fractions "
                "of the old moments that a step keeps; [0.9, 0.95] is usual"
            )
        if self.name == "muon" and self.bits == 8:
            raise ValueError("optimizer.bits=8 is for AdamW's moments; Muon has one momentum, in float32")
        return self


class LoraConfig(ConfigModel):
    """Train adapters instead of the weights. `quantize` loads the frozen base in 4 bits (QLoRA)."""

    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    quantize: bool = False


def check_dropout(lora: LoraConfig | None, *, dropout: bool) -> None:
    """Raise ValueError for adapters whose dropout is set while `dropout` is off."""
    if lora is not None and lora.dropout and not dropout:
        raise ValueError(
            f"lora.dropout={lora.dropout} does nothing while dropout is off, as it is by default: in RL and "
            "DPO it makes the probabilities of an update differ from those they are compared with; leave "
            "it out, or set dropout: true beside lora"
        )


class LearnerConfig(ConfigModel):
    """How an update is computed, not what it computes."""

    optimizer: OptimizerConfig = OptimizerConfig()
    num_ranks: int = Field(default=1, ge=1)  # processes, one per GPU
    parallel: ParallelName = "fsdp"  # shard the weights over the ranks, or copy them to each
    dtype: Literal["float32", "bfloat16"] = "float32"  # of matrix products; master weights are float32
    max_tokens_per_micro_batch: int = Field(default=16_384, gt=0)
    backend: Literal["packed", "padded"] = "packed"
    share_prompts: Literal["auto", "always", "never"] = "auto"
    share_prompts_min_tokens: int = Field(default=8, ge=1)  # auto: the shortest prompt that is shared
    gradient_checkpointing: bool | Literal["selective"] = False  # selective: keep products and attention
    offload_activations: bool = False  # keep the layers' checkpointed inputs in CPU memory
    compile: bool | None = None  # torch.compile the layers; unset: on a GPU, with one rank
    dropout: bool = False  # train with the dropout of the model's config and of lora.dropout
    logits_tile_mb: int | None = Field(default=None, gt=0)  # memory for logits; unset: 16, on a GPU 512
    lora: LoraConfig | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether the frozen base is loaded in 4 bits (QLoRA)."""
        return self.lora is not None and self.lora.quantize

    def compiles(self, *, on_gpu: bool) -> bool:
        """Whether layers are compiled. Selective checkpointing does not see into compiled layers."""
        if self.compile is None:
            return on_gpu and self.num_ranks == 1 and self.gradient_checkpointing != "selective"
        return self.compile

    def logits_tile(self, *, on_gpu: bool) -> int:
        """MiB of logits at any time. Small tiles stay in a CPU's cache; a GPU needs large products."""
        return self.logits_tile_mb or (512 if on_gpu else 16)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.share_prompts == "always" and self.backend == "padded":
            raise ValueError(
                "share_prompts=always needs backend: packed "
                "(a padded row cannot attend to another row's prompt)"
            )
        if self.compile and self.gradient_checkpointing == "selective":
            raise ValueError(
                "compile=true hides a layer's products from gradient_checkpointing=selective: use "
                "gradient_checkpointing: true, or leave compile out"
            )
        if self.offload_activations and not self.gradient_checkpointing:
            raise ValueError(
                "offload_activations=true moves the inputs of checkpointed layers to the CPU, and there are "
                "none: set gradient_checkpointing: true too"
            )
        check_dropout(self.lora, dropout=self.dropout)
        if self.optimizer.name == "muon" and self.is_quantized:
            raise ValueError(
                "optimizer.name=muon with lora.quantize has not been tried: use adamw, or adapters on a base "
                "that is not quantised"
            )
        if self.num_ranks > 1 and self.parallel == "fsdp":
            self._check_shards()
        return self

    def _check_shards(self) -> None:
        why, ranks = "", f"learner.num_ranks={self.num_ranks} with parallel=fsdp"
        if self.is_quantized:
            why = (
                "lora.quantize packs the base into 4-bit blocks, which cannot be split into the ranks' shards"
            )
        elif self.optimizer.bits == 8:
            why = (
                "optimizer.bits=8 quantises each rank's shard in its own blocks, from which another number "
                "of ranks could not resume"
            )
        elif self.optimizer.name == "muon":
            why = "optimizer.name=muon orthogonalises whole matrices, but a rank holds shards"
        elif self.optimizer.offload:
            why = (
                "optimizer.offload keeps whole weights and moments on the CPU, but a rank holds shards, and "
                "the moments are already spread over the ranks"
            )
        if why:
            raise ValueError(f"{ranks}: {why}; leave the setting out, or use parallel: replicated")
