"""Whether a model folder can be trained as a causal language model, told before anything loads."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from verl_lite.engine.config.model import ModelConfig, is_gguf
from verl_lite.engine.model.configuration import configuration_of, read_configuration, vocabulary_of
from verl_lite.engine.types import PreTrainedModel, Tokenizer
from verl_lite.errors import ConfigError, DataError

INDEX, LFS = "model.safetensors.index.json", b"version https://git-lfs"
# what the architecture in a config.json ends with -> what such a model is
OTHER_HEADS: Mapping[str, str] = {
    "ForSequenceClassification": "classifies sequences (or is a reward model)",
    "ForTokenClassification": "classifies tokens",
    "ForMultipleChoice": "chooses between answers",
    "ForQuestionAnswering": "marks answers in a text",
    "ForMaskedLM": "fills masked tokens",
    "ForPreTraining": "is trained on several objectives of an encoder",
    "ForNextSentencePrediction": "compares sentences",
    "ForImageClassification": "classifies images",
}


def check_config(path: str, what: str = "model.path", *, trains: bool = True) -> None:
    """Raise ConfigError unless the folder `path` is a causal language model's, DataError for missing files.

    Hub ids, GGUF files and "" are passed over: transformers reads them when they are loaded. Samplers take
    quantised weights too; a run that `trains` needs plain ones.
    """
    folder = Path(path)
    if not path or is_gguf(path) or not folder.is_dir():
        return
    config, adapter = (_read_json(folder / name, what) for name in ("config.json", "adapter_config.json"))
    if problem := _problem(config, trains=trains) if config else _without_config(adapter):
        raise ConfigError(f"{what}={path!r}: {problem}")
    shards = _read_json(folder / INDEX, what).get("weight_map", {}).values()
    if absent := sorted({name for name in shards if not (folder / name).is_file()}):
        raise DataError(
            f"{what}={path!r} lacks {_some(absent)}, which its {INDEX} names: copy the whole folder"
        )
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as opened:
            if opened.read(len(LFS)) == LFS:
                raise DataError(
                    f"{what}={path!r}: {file.name} is a pointer of Git LFS: fetch it (git lfs pull)"
                )


def _read_json(file: Path, what: str) -> dict[str, Any]:
    """The object in the file; empty without one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise DataError(f"{what}={str(file.parent)!r}: {file.name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{what}={str(file.parent)!r}: {file.name} holds {found!r:.40}, expected an object")
    return found


def _without_config(adapter: Mapping[str, Any]) -> str:
    if not adapter:
        return "it has no config.json; is this the folder of a transformers model?"
    return (
        f"it holds adapters of {adapter.get('base_model_name_or_path')!r}, not a model: merge them into that "
        "model (PEFT's merge_and_unload), or train that model with learner.lora"
    )


def _problem(config: Mapping[str, Any], *, trains: bool) -> str:
    """Why the config's model cannot be trained; empty if nothing is known against it."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    kind, architectures = config.get("model_type"), config.get("architectures") or []
    if kind is None:
        return "its config.json names no model_type; is this the folder of a transformers model?"
    if kind not in CONFIG_MAPPING:
        code = ", whose code is in the folder (auto_map)" if config.get("auto_map") else ""
        return (
            f"transformers {transformers.__version__} has no model_type {kind!r}{code}. verl-lite runs "
            "no code from model folders (trust_remote_code): use a model that transformers has, or update it"
        )
    for name in architectures:
        for ending, meaning in OTHER_HEADS.items():
            if name.endswith(ending):
                return (
                    f"its architecture is {name}, which {meaning}; expected a causal language model, such as "
                    "Qwen3ForCausalLM"
                )
    if config.get("is_encoder_decoder"):
        return f"{kind} is an encoder and a decoder; expected a model with a decoder alone"
    if kind not in CAUSAL:
        return f"{kind} is no causal language model in transformers {transformers.__version__}"
    if trains and (quantised := config.get("quantization_config")):
        method = quantised.get("quant_method", "by MLX")
        return (
            f"its weights are quantised ({method}), and training needs plain ones: "
            "use those they were made from (learner.lora.quantize: true quantises a frozen base itself)"
        )
    return ""


def check_finite(model: PreTrainedModel, path: str) -> None:
    """Raise DataError for a weight of nan or inf, which makes every result nan."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise DataError(
                f"the model {path!r} has a weight that is nan or inf, in {name}: nothing that it computes "
                "would be a number; was it saved after a run that diverged?"
            )


def check_loaded(model: PreTrainedModel, report: Mapping[str, Collection[Any]], path: str) -> None:
    """Raise DataError unless the weights in `path` are those of the model's configuration.

    `report` is transformers' loading information. Weights of parts that the model does not have (towers for
    images, heads of other trainers) are passed over; further layers and parameters of its own parts are not.
    """
    parts = [
        (sorted(report["missing_keys"]), "lack {}, which would be random"),
        (sorted(report["mismatched_keys"]), "have other shapes than the configuration: {}"),
        (
            sorted(name for name in report["unexpected_keys"] if _belongs(model, name)),
            "have {}, which the model of the configuration has no place for",
        ),
    ]
    found = [text.format(_some(names)) for names, text in parts if names]
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    ties = model._tied_weights_keys and getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if ties and head and head.weight is not embedding.weight:
        found.append("have a head of their own, although tie_word_embeddings is true")
    if found:
        raise DataError(
            f"the weights in {path!r} {'; they '.join(found)}: config.json and weights are not of one model, "
            "or the copy is not whole"
        )


def _belongs(model: nn.Module, name: str) -> bool:
    """Whether the weight's name is one of a module that the model has, or of a further layer in its lists."""
    if name.endswith("inv_freq"):  # computed from the configuration
        return False
    path = name.split(".")
    modules = dict(model.named_modules())
    lists = {at for at, module in modules.items() if isinstance(module, nn.ModuleList)}
    return ".".join(path[:-1]) in modules or any(".".join(path[:n]) in lists for n in range(1, len(path)))


def _some(names: Collection[Any]) -> str:
    first = next(iter(names))
    name = first if isinstance(first, str) else " ".join(map(str, first))
    return name if len(names) == 1 else f"{name} and {len(names) - 1} more"


def check_critic(path: str, policy: ModelConfig) -> None:
    """Raise ConfigError if algorithm.critic.model=`path` lacks tokens of the policy."""
    check_config(path, "algorithm.critic.model")
    vocabulary = vocabulary_of(read_configuration(path, what="algorithm.critic.model"))
    check_critic_vocabulary(path, vocabulary, needed=vocabulary_of(configuration_of(policy)))


def check_critic_vocabulary(path: str, vocabulary: int, *, needed: int) -> None:
    """Raises ConfigError if the critic's `vocabulary` is smaller than the policy's."""
    if vocabulary < needed:
        raise ConfigError(
            f"algorithm.critic.model={path} has a vocabulary of {vocabulary}, the policy {needed}: "
            "the critic reads the policy's tokens, so choose one of the same family"
        )


def check_vocabulary(tokenizer: Tokenizer, config: ModelConfig) -> None:
    """Raise ConfigError if tokens of the tokenizer have no row in the model's embedding.

    Added tokens beyond it are allowed, as some models have for images, unless text ends with them.
    """
    if config.tiny is not None or is_gguf(config.path):
        return
    path, vocabulary = config.path, vocabulary_of(configuration_of(config))
    added = set(tokenizer.get_added_vocab().values())
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id} - {None}
    beyond = sorted(
        (index, token)
        for token, index in tokenizer.get_vocab().items()
        if index >= vocabulary and (index not in added or index in ends)
    )
    if beyond:
        index, token = beyond[0]
        raise ConfigError(
            f"the tokenizer of {path!r} has {len(tokenizer):,} tokens, its model {vocabulary:,}: {token!r} "
            f"is token {index:,}, which the model does not have. Use the tokenizer of this model, "
            "or resize the model's embeddings"
        )
