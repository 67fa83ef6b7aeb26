"""Where the policy comes from."""

from typing import Literal

from pydantic import PositiveInt, model_validator

from verl_lite.plugins.config_file import ConfigModel

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
