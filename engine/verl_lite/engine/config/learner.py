"""The `learner` section of the config: optimiser, precision, memory, ranks, LoRA."""

from typing import Literal, Self

from pydantic import Field, model_validator

from verl_lite.plugins.config_file import ConfigModel

ParallelName = Literal["fsdp", "replicated"]


class OptimizerConfig(ConfigModel):
    """AdamW or Muon, its schedule and its guards."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw, or muon: torch's Muon for the policy's hidden matrices in RL, AdamW for embeddings, head, norms
    and biases."""
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    """Momentum of Muon."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak learning rate. 1e-6 is usual for RL of all weights, 1e-5 for LoRA; small models take more."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Fractions of the old moments that a step keeps."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment, against division by 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay per step, times the learning rate."""
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "cosine"
    """The learning rate over the steps; wsd is warm-up, stable, decay."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly from 0."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """wsd: the fraction of steps in the decay phase."""
    min_lr_fraction: float = Field(default=0.1, ge=0, le=1)
    """The learning rate at the end, as a fraction of the peak (linear, cosine, wsd)."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Scale the gradient down to this norm; null: no clipping."""
    bits: Literal[8, 32] = 32
    """Precision of the optimiser's moments; 8 saves three quarters of their memory."""
    offload: bool = False
    """Keep the moments in CPU memory."""
    max_bad_steps: int = Field(default=5, ge=1)
    """Number of updates with a gradient of nan or inf after which the run stops; such an update changes no
    weight."""

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
    """Rank of the adapters: more learn more and cost more."""
    alpha: int = Field(default=32, gt=0)
    """Scale of the adapters: they are multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapters' input; needs dropout: true beside lora."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Modules with adapters, by the ends of their names; all-linear: every linear layer but the head."""
    quantize: bool = False
    """Load the frozen base in 4 bits (QLoRA)."""


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
    """The optimiser of RL."""
    num_ranks: int = Field(default=1, ge=1)
    """Learner processes, one per GPU."""
    parallel: ParallelName = "fsdp"
    """Shard the weights over the ranks, or copy them to each."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products; master weights are float32 all the same if model.dtype is."""
    max_tokens_per_micro_batch: int = Field(default=16_384, gt=0)
    """Tokens per forward pass, padding not counted. Lower it when memory does not fit."""
    backend: Literal["packed", "padded"] = "packed"
    """packed: rows one behind another without padding. padded: for models that fail the proof at start-up
    (then chosen by itself)."""
    share_prompts: Literal["auto", "always", "never"] = "auto"
    """Compute the prompt of a group once for all its samples. auto: where the model allows it and it pays."""
    share_prompts_min_tokens: int = Field(default=8, ge=1)
    """auto: the shortest prompt that is shared, in tokens."""
    gradient_checkpointing: bool | Literal["selective"] = False
    """Recompute activations in the backward pass: much less memory, about a third more time. selective keeps
    the products and the attention: less of both."""
    offload_activations: bool = False
    """Keep the layers' checkpointed inputs in CPU memory."""
    compile: bool | None = None
    """torch.compile the decoder layers. Unset: on a GPU, with one rank."""
    dropout: bool = False
    """Train with the dropout of the model's config and of lora.dropout. Off in RL: it makes the update's
    probabilities differ from those it is compared with."""
    logits_tile_mb: int | None = Field(default=None, gt=0)
    """Memory for logits at any time, in MiB; the head is computed in tiles of it."""
    lora: LoraConfig | None = None
    """Train adapters instead of all weights."""

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
