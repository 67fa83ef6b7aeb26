"""Find, check and load the policy and its tokenizer, and save them as a Hugging Face folder."""

import copy
from collections.abc import Mapping
from contextlib import redirect_stderr
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from verl_lite.engine.config.data import ChatConfig
from verl_lite.engine.config.model import ModelConfig, is_gguf
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.model.compatibility import check_finite, check_loaded
from verl_lite.engine.model.configuration import first_line, refuse_missing_folder
from verl_lite.engine.model.gguf import from_pretrained
from verl_lite.engine.model.quantization import four_bit_config, keep_training_kernels
from verl_lite.engine.model.tiny import build_tiny_model, build_tiny_tokenizer
from verl_lite.engine.model.weights import base_model, named_weights
from verl_lite.engine.types import PreTrainedModel, Tokenizer
from verl_lite.errors import DataError
from verl_lite.plugins.tokenizer_file import load_auto_tokenizer

TOKENIZERS = ("token*", "vocab*", "*.model", "*.tiktoken", "tekken*")  # names of their files


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(config: ModelConfig, *, chat_template: str | None = None) -> Tokenizer:
    """The policy's tokenizer, without loading the policy; with the template in the file `chat_template`.

    Raises DataError for a missing folder or tokenizer, chat template or eos token.
    """
    tokenizer = build_tiny_tokenizer() if config.tiny is not None else _own_tokenizer(config)
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    if not tokenizer.chat_template:
        raise DataError(
            f"the tokenizer of model.path={config.path!r} has no chat template: use an instruction-tuned "
            "model, or name a file with one in data.chat_template"
        )
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"the tokenizer of model.path={config.path!r} has no eos token: answers could never end; set "
            "eos_token in its tokenizer_config.json"
        )
    return tokenizer


def open_chat_template(tokenizer: Tokenizer, chat: ChatConfig, *, today: date | None = None) -> ChatTemplate:
    """The tokenizer's template with the config's variables and date; `today` if it has no date."""
    return ChatTemplate(tokenizer, arguments=chat.template_kwargs, today=chat.date or today)


def read_template(path: str) -> str:
    """The chat template in the file. Raises DataError if there is none, or one that is not Jinja."""
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data.chat_template: cannot read {path} (looked from {Path.cwd()}): {error}"
        ) from None
    try:
        render_jinja_template([], chat_template=text)
    except TemplateSyntaxError as error:
        raise DataError(f"data.chat_template: {path}, line {error.lineno}: {error.message}") from None
    return text


def _own_tokenizer(config: ModelConfig) -> Tokenizer:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer

    path = config.path or ""
    try:
        refuse_missing_folder(path)
        if Path(path).is_dir() and not any(file for kind in TOKENIZERS for file in Path(path).glob(kind)):
            raise OSError("the folder has none (tokenizer.json): transformers would make up an empty one")
        if is_gguf(path):
            return from_pretrained(AutoTokenizer, path)
        return load_auto_tokenizer(path)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise DataError(f"cannot load the tokenizer of model.path={path!r}: {first_line(error)}") from None


def prepare_model(config: ModelConfig, folder: Path, *, seed: int) -> str:
    """The path or hub id to load the policy from; a tiny or GGUF model is written into `folder` first.

    A GGUF file is de-quantised: its values as plain float32 weights, so that every sampler can load them.
    """
    if config.tiny is not None:
        build_tiny_model(folder, config.tiny, seed=seed)
    elif is_gguf(config.path):
        with redirect_stderr(StringIO()):  # transformers' progress bar has no switch here
            model = load_policy(str(config.path), dtype="float32", device=torch.device("cpu"))
        save_policy(model, _own_tokenizer(config), folder)
    else:
        return str(config.path)
    return str(folder)


def load_policy(path: str, *, dtype: str, device: torch.device, quantize: bool = False) -> PreTrainedModel:
    """The causal language model in `path` on `device`; with `quantize`, its linear layers in 4 bits.

    Raises DataError if it cannot be loaded, or has weights that are not finite.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if quantize:  # layers are quantised on the device, one by one
        options |= {"quantization_config": four_bit_config(options["dtype"]), "device_map": {"": device}}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # check_loaded refuses them
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # check_loaded says it
    try:
        model, report = from_pretrained(AutoModelForCausalLM, path, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"cannot load the model {path!r}: {first_line(error)}") from None
    finally:
        logging.set_verbosity(verbosity)
    if not is_gguf(path):
        check_loaded(model, report, path)
    check_finite(model, path)
    if quantize:
        keep_training_kernels(model)
        return model
    return model.to(device)


def save_policy(
    model: PreTrainedModel,
    tokenizer: "Tokenizer | None",
    folder: Path,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write weights (safetensors, adapters merged), configuration and tokenizer as one model folder.

    `tokenizer` may be None. `weights`: an earlier copy to write instead of the model's weights.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    state = dict(named_weights(model) if weights is None else weights)
    causal = base_model(model)
    if getattr(causal.config, "quantization_config", None) is not None:  # loaded in 4 bits or from GGUF
        causal = _unquantized_twin(causal)
    causal.save_pretrained(folder, state_dict=state)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _unquantized_twin(causal: PreTrainedModel) -> PreTrainedModel:
    """The model without weights and quantisation, to save plain weights with."""
    config = copy.deepcopy(causal.config)
    del config.quantization_config
    with torch.device("meta"):
        twin = type(causal)(config)
    twin.generation_config = causal.generation_config
    return twin


def pad_token_id(tokenizer: Tokenizer) -> int:
    """The token that pads rows; eos if the tokenizer names none, as nothing attends to padding."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
