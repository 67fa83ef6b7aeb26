"""A transformers model that scores text: loaded once, run in batches without gradients.

torch and transformers are imported only when a model is loaded.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from verl_lite.errors import ConfigError, DataError, PluginError
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.rollout import Rollout, clean_text
from verl_lite.plugins.tokenizer_file import load_auto_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

MISSING = "this reward needs torch and transformers, which are not installed: pip install 'verl-lite[train]'"


class ModelOptions(ConfigModel):
    """Which model, on which device, and how much of a text it reads."""

    model: str = Field(
        min_length=1, description="a local folder, or the id of a model on the Hugging Face hub"
    )
    revision: str | None = Field(default=None, description="the hub's branch, tag or commit")
    device: str = Field(
        default="auto", description="auto (a GPU if there is one), cpu, cuda, cuda:1, ... as in torch"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="of the weights; auto: as saved"
    )
    max_tokens: int = Field(default=4096, gt=0, description="maximum tokens of the model's input")
    batch_tokens: int = Field(
        default=32_768, gt=0, description="maximum tokens per forward pass, padding included"
    )
    trust_remote_code: bool = Field(
        default=False,
        description="run code that comes with the model; only for models you trust like your own code",
    )


@dataclass(frozen=True, slots=True)
class Chat:
    """The `ids` to score, and what was cut off or removed from the text."""

    ids: Sequence[int]
    num_cut_tokens: int = 0
    num_special_tokens: int = 0


class ScoringModel:
    """`head` is "SequenceClassification" or "TokenClassification".

    Raises PluginError if torch or transformers is missing, DataError for a model that cannot be loaded,
    ConfigError for a missing device.
    """

    def __init__(self, options: ModelOptions, head: str) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise PluginError(f"{MISSING} ({error})") from None
        self._torch: Any = torch
        self.options = options
        self.device = self._device(options.device)
        revision, code = options.revision, options.trust_remote_code
        try:
            self.tokenizer: Any = load_auto_tokenizer(options.model, revision=revision, code=code)
            auto: Any = getattr(transformers, f"AutoModelFor{head}")
            model, report = auto.from_pretrained(
                options.model,
                dtype=options.dtype,
                output_loading_info=True,
                revision=revision,
                trust_remote_code=code,
            )
        except (OSError, ValueError) as error:
            raise DataError(f"cannot load the model {options.model!r}: {error}") from error
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise DataError(
                f"{options.model!r} is not a model for {head}: its weights lack {missing}, "
                "which would be random"
            )
        self._model: Any = model.eval().to(self.device)
        self.num_labels: int = model.config.num_labels
        # The model finds a padded row's last token by this id. Without it, rows run one by one.
        self._pad_id: int | None = model.config.get_text_config().pad_token_id
        self._pads = self._pad_id is not None or head == "TokenClassification"

    def _device(self, name: str) -> Any:
        torch = self._torch
        if name == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device={name!r} cannot be used: {str(error)[:200]}") from None
        return device

    def token_ids(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def without_special_tokens(self, text: str) -> tuple[str, int]:
        """`text` without the special tokens spelled out in it, which could fake the end of the turn."""
        text, count = clean_text(text), 0
        specials = sorted(filter(None, self.tokenizer.all_special_tokens), key=len, reverse=True)
        while found := sum(text.count(token) for token in specials):
            count += found  # again: the rest may form another one
            for token in specials:
                text = text.replace(token, "")
        return text, count

    def chat(self, rollout: Rollout, *, use_template: bool) -> Chat:
        """Prompt and completion in the model's training format. If too long, the front is cut off, since the
        score is read at the end.
        """
        completion, num_special = self.without_special_tokens(rollout.completion)
        if use_template:
            messages = [*rollout.prompt, {"role": "assistant", "content": completion}]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, **_variables(rollout))
        else:
            text = f"{rollout.prompt_text}\n\n{completion}" if rollout.prompt else completion
        # a chat template writes its own special tokens
        ids = self.token_ids(clean_text(text), add_special_tokens=not use_template)
        cut = max(0, len(ids) - self.options.max_tokens)
        return Chat(ids[cut:], cut, num_special)

    def run(self, rows: Sequence[Sequence[int]], read: Callable[[int, "Tensor"], Any]) -> list[Any]:
        """`read(row, logits)` for every row of token ids, in order; batches hold rows of similar length.

        logits are float32 on the CPU, for one row without padding: (labels,) or (tokens, labels).
        """
        answers: list[Any] = [None] * len(rows)
        with self._torch.inference_mode():
            for batch in self._batches(rows):
                logits = self._forward([rows[at] for at in batch])
                for place, at in enumerate(batch):
                    row = logits[place]
                    answers[at] = read(at, row[: len(rows[at])] if row.dim() == 2 else row)
        return answers

    def _batches(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        batches: list[list[int]] = []
        for at in sorted(range(len(rows)), key=lambda row: len(rows[row])):
            longest = len(rows[at])  # rows come in order of length
            if batches and self._pads and (len(batches[-1]) + 1) * longest <= self.options.batch_tokens:
                batches[-1].append(at)
            else:
                batches.append([at])
        return batches

    def _forward(self, rows: Sequence[Sequence[int]]) -> Any:
        torch = self._torch
        longest = max(len(row) for row in rows)
        padding = self._pad_id or 0
        ids = [[*row, *[padding] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        output = self._model(
            input_ids=torch.tensor(ids, device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
        )
        return output.logits.float().cpu()


def _variables(rollout: Rollout) -> dict[str, object]:
    """The row's own template variables, in TRL's column; a template ignores those of other models."""
    given = rollout.columns.get("chat_template_kwargs") or {}
    found = json.loads(given) if isinstance(given, str) else given
    return {name: value for name, value in found.items() if value is not None}  # Arrow fills gaps
