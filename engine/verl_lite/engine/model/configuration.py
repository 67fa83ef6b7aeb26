"""A model's configuration, read without its weights, and what it has to hold for a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_lite.engine.config.model import ModelConfig, is_gguf
from verl_lite.engine.model.gguf import from_pretrained
from verl_lite.engine.model.tiny import build_tiny_tokenizer, tiny_model_config
from verl_lite.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def read_configuration(path: str, *, what: str = "model.path") -> "PreTrainedConfig":
    """The configuration in a folder, hub id or GGUF file; raises DataError, which names `what`."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        refuse_missing_folder(path)
        return from_pretrained(AutoConfig, path)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise DataError(f"cannot load {what}={path!r}: {first_line(error)}") from None


def configuration_of(model: ModelConfig) -> "PreTrainedConfig":
    """The configuration of the config's model."""
    if model.tiny is not None:
        return tiny_model_config(model.tiny, build_tiny_tokenizer())
    return read_configuration(str(model.path))


def check_context(
    model: ModelConfig,
    *,
    needed_tokens: int,
    what: str = "rollout.max_prompt_tokens + rollout.max_new_tokens",
) -> None:
    """Raise ConfigError if `needed_tokens`, set by `what`, exceeds the model's context."""
    text = configuration_of(model).get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    if longest is not None and needed_tokens > longest:
        lower = "one of the two" if "+" in what else "it"
        raise ConfigError(
            f"{what} = {needed_tokens} tokens, but the context "
            f"of {model.path or 'the tiny model'} is {longest}: lower {lower}"
        )


def vocabulary_of(config: "PreTrainedConfig") -> int:
    """Rows of the language model's embedding."""
    return int(config.get_text_config().vocab_size)


def attention_window(path: str) -> int | None:
    """The longest window of attention in the model's configuration; None if it names none, or reads all."""
    config: Any = read_configuration(path).get_text_config()
    kinds = getattr(config, "layer_types", None)
    if not getattr(config, "use_sliding_window", True) or (kinds and not any("sliding" in k for k in kinds)):
        return None
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_window_size", None)
    return int(window) if window else None


def refuse_missing_folder(path: str) -> None:
    """Raise OSError for a missing local folder, instead of asking the hub for './model'."""
    if is_gguf(path):
        return  # `from_pretrained` looks for it
    looks_local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if looks_local and not Path(path).is_dir():
        raise OSError(f"there is no folder {path} (looked from {Path.cwd()})")


def first_line(error: Exception) -> str:
    """The first line of the message; all of it where that line only announces the rest."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    lines = str(error).strip().split("\n")
    if HF_HUB_OFFLINE and "couldn't connect" in lines[0]:
        return f"{lines[0]} HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE in the environment forbids it"
    return " ".join(lines) if lines[0].rstrip().endswith(":") else lines[0]
