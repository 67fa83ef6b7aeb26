"""The `algorithm` section of the config, and what its settings refuse together.

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
    """Weight of the KL penalty. At 0 no reference is loaded."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """The estimate of the KL per token: k1 is the log ratio, k2 half its square, k3 the low-variance one."""
    placement: Literal["loss", "reward"] = "loss"
    """Add it to the loss, or subtract it from each token's reward."""
    reference: Literal["copy", "offload", "adapter_off", "ema", "none"] = "copy"
    """Where the reference lives: a copy beside the policy, offloaded to CPU memory, the policy with its
    adapters switched off (LoRA), or ema, a moving average of the policy."""
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    """ema: how much of the reference a step keeps."""
    target: float | None = Field(default=None, gt=0)
    """Makes the coefficient adaptive towards this KL per completion, in nats."""
    horizon_samples: int = Field(default=10_000, gt=0)
    """How slowly the adaptive coefficient moves, in completions."""
    ratio_weighted: bool = False
    """Multiply k1 or k3 in the loss by the ratio, for the gradient of KL(policy || reference)."""

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
    """Keep the policy's entropy up; `entropy_bonus` is what the adaptive bonus starts from."""

    target: float | None = Field(default=None, gt=0)
    """Nats per token: below it the bonus grows by `step` per update, above it it falls, never below 0. Unset:
    the bonus stays as it is."""
    step: float = Field(default=1e-3, gt=0)
    """How much the adaptive bonus moves per update."""
    max_bonus: float = Field(default=0.1, gt=0)
    """The largest adaptive bonus."""
    covariance: Literal["off", "clip", "kl"] = "off"
    """clip: no gradient for `fraction` of the tokens, taken from those whose covariance of log-probability
    and advantage is within low and high. kl: a penalty on |log p - log p_old| for the `fraction` with the
    highest one."""
    fraction: float = Field(default=2e-4, gt=0, le=1)
    """The fraction of tokens that `covariance` treats."""
    low: float = 1.0
    """clip: the smallest covariance of a token that may be taken."""
    high: float = 5.0
    """clip: the largest."""
    coefficient: float = Field(default=1.0, gt=0)
    """kl: the weight of the penalty."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"entropy.low={self.low} must be below entropy.high={self.high}")
        return self


class OverlongConfig(ConfigModel):
    """How completions at or near the length limit are treated."""

    mode: Literal["keep", "mask", "shape"] = "keep"
    """keep completions cut at the limit as they are, mask them out of the loss, or shape the reward near the
    limit."""
    buffer_tokens: int = Field(default=0, ge=0)
    """shape: the penalty grows linearly over the last tokens before the limit."""
    penalty: float = Field(default=1.0, ge=0)
    """shape: subtracted from the reward at the limit."""

    @model_validator(mode="after")
    def _has_buffer(self) -> Self:
        if self.mode == "shape" and self.buffer_tokens == 0:
            raise ValueError(
                "overlong.mode=shape needs overlong.buffer_tokens above 0 to grow the penalty over"
            )
        return self


class CriticConfig(ConfigModel):
    """The value model of PPO."""

    model: str = ""
    """A model folder or hub id for the critic's initial weights; empty: the policy's."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Learning rate of the critic."""
    value_clip: float | None = Field(default=0.2, gt=0)
    """Clip the change of a value per update to this; null: no clip."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which only the critic learns."""
    epochs: int = Field(default=1, ge=1)
    """The critic's passes over each batch."""


class AlgorithmConfig(ConfigModel):
    """The advantage estimator, the policy loss and their options.

    The ratio is clipped to [1 - clip_low, 1 + clip_high], under gmpo its logarithm to [-clip_low, clip_high];
    dppo bounds the change of a token's probability (dppo_tv) or a KL (dppo_kl). CLIPS has other defaults.
    """

    advantage: AdvantageName = "grpo"
    """How advantages are estimated from rewards; docs/algorithms.md has each formula and its paper."""
    loss: PolicyLossName = "ppo_clip"
    """The policy loss; docs/algorithms.md has each formula and its paper."""
    aggregate: AggregateName = "token_mean"
    """How token losses become one number: the mean over all tokens, the mean of the sequences' means, or the
    sequences' sums over a constant (norm_tokens)."""
    clip_low: float = Field(default=0.2, ge=0)
    """The ratio is clipped below 1 - clip_low (gmpo: its logarithm; dppo bounds a change instead). Each loss
    has the default of its paper."""
    clip_high: float = Field(default=0.2, ge=0)
    """The ratio is clipped above 1 + clip_high. A higher one than clip_low (0.28) keeps exploration alive."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Bound the loss of tokens with negative advantage at this multiple of the advantage; unset: no bound. 3
    is usual."""
    ratio_cap: float = Field(default=20.0, ge=1)
    """dppo: the largest ratio."""
    gate_positive: float = Field(default=1.0, gt=0)
    """sapo: steepness of the gate for positive advantages."""
    gate_negative: float = Field(default=1.05, gt=0)
    """sapo: steepness of the gate for negative advantages."""
    right_at: float = 1.0
    """rft: the smallest reward of a sample that is imitated."""
    norm_tokens: int | None = Field(default=None, gt=0)
    """The constant of sequence_sum_norm, in tokens, such as rollout.max_new_tokens; needed by it alone."""
    epochs: int = Field(default=1, ge=1)
    """Passes over each batch. More reuse samples; the clip then matters."""
    mini_batches: int = Field(default=1, ge=1)
    """Updates per pass, each on its part of the batch."""
    entropy_bonus: float = 0.0
    """Weight of the entropy in the loss; above 0 it pushes towards more random samples."""
    entropy: EntropyConfig = EntropyConfig()
    """What keeps the policy's entropy up."""
    whiten: bool = False
    """Standardise the advantages over the whole batch's tokens."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount per token (gae, and rewards at positions)."""
    lam: float = Field(default=1.0, ge=0, le=1)
    """Lambda of GAE: 1 is the plain return minus the value, lower trades variance for bias."""
    gae_over: Literal["tokens", "turns"] = "tokens"
    """What gamma and lam discount: every token, or only from turn to turn."""
    dynamic_sampling: bool = False
    """Sample further prompts until num_prompts groups have differing rewards (DAPO)."""
    max_refills: int = Field(default=3, ge=1)
    """Dynamic sampling: extra rounds of prompts per step at most."""
    kl: KLConfig = KLConfig()
    """The KL penalty towards a reference policy."""
    importance: ImportanceConfig = ImportanceConfig()
    """Correction of differences between sampler and learner."""
    overlong: OverlongConfig = OverlongConfig()
    """How completions at or near the length limit are treated."""
    critic: CriticConfig | None = None
    """The value model of PPO (advantage: gae)."""

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
