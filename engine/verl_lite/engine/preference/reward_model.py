"""A reward model: a language model's last hidden state and a linear head, trained on rankings.

The model is transformers' sequence-classification class, so its folder loads anywhere. A new head starts at
0: the first loss of a pair is exactly log 2.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.learner.backbone import backbone_of, hidden_states
from verl_lite.engine.learner.layers import keep_activations, prepare_layers
from verl_lite.engine.learner.packing import PackedBatch
from verl_lite.engine.learner.policy import micro_batches
from verl_lite.engine.learner.proof import arrange
from verl_lite.engine.model.compatibility import check_finite
from verl_lite.engine.model.configuration import first_line
from verl_lite.engine.model.lora import add_adapters
from verl_lite.engine.model.weights import base_model, float32_master_weights
from verl_lite.engine.preference.config import RewardModelConfig
from verl_lite.engine.preference.data import Ranking
from verl_lite.engine.preference.loop import Scored
from verl_lite.engine.preference.losses import bradley_terry, centring, plackett_luce
from verl_lite.engine.types import PreTrainedModel, Tokenizer, TrainingSample
from verl_lite.errors import ConfigError, DataError


def load_scoring_model(path: str, *, dtype: str, device: torch.device, pad_token_id: int) -> PreTrainedModel:
    """The model in `path` with one output; a language model gets a new head of zeros.

    Raises DataError if it cannot be loaded, ConfigError for an architecture without .score.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a new head is expected
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=1, dtype=getattr(torch, dtype), output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"cannot load {path!r} as a reward model: {first_line(error)}") from None
    finally:
        logging.set_verbosity(verbosity)
    missing = set(report["missing_keys"])
    if not hasattr(model, "score"):
        raise ConfigError(
            f"{type(model).__name__} has no .score that reads the last token: use a model whose class for "
            "sequence classification has one, as those of the Llama, Qwen, Mistral, Gemma and GPT-2 families"
        )
    if missing - {"score.weight", "score.bias"}:
        raise DataError(f"{path!r} lacks {sorted(missing)[0]}, which would be random")
    if missing:
        nn.init.zeros_(model.score.weight)
    check_finite(model, path)
    model.config.pad_token_id = pad_token_id
    return model.to(device)


def save_scoring_model(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder for AutoModelForSequenceClassification, adapters merged."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class ScoringHead:
    """Scores of conversations, read at their last token."""

    def __init__(self, model: PreTrainedModel, config: LearnerConfig, *, pad_token_id: int) -> None:
        self.model = add_adapters(model, config.lora, task_type="SEQ_CLS")
        float32_master_weights(self.model)
        self._config = config
        self._pad_token_id = pad_token_id
        self._classifier = base_model(self.model)
        self._backbone = backbone_of(self._classifier)
        reading = _ScoreReading(self)
        with _moved(self._classifier.score):
            self.arrangement = arrange(self._classifier, reading, config, pad_id=pad_token_id)
        prepare_layers(self._classifier, config, next(model.parameters()).device)

    def score(self, samples: Sequence[TrainingSample]) -> Tensor:
        """The score of each sample, with gradients."""
        device = next(self.model.parameters()).device
        # Packing computes the hidden states that predict completion tokens: with one more token, that
        # includes the last real token's.
        longer = [replace(s, completion_ids=[*s.completion_ids, self._pad_token_id]) for s in samples]
        found: list[Tensor] = [torch.empty(0)] * len(samples)
        batches = micro_batches(
            longer, self._config, packed=self.arrangement.is_packed, pad_token_id=self._pad_token_id
        )
        for micro in batches:
            with self._autocast(device):
                scores_S = self.last_scores(micro).float()
            for index, value in zip(micro.sample_indices, scores_S, strict=True):
                found[index] = value
        return torch.stack(found)

    def last_scores(self, batch: PackedBatch) -> Tensor:
        """The score read at the last predicting state of each sample in the batch."""
        lengths_S = torch.bincount(batch.sequence_N, minlength=len(batch.sample_indices))
        device = next(self.model.parameters()).device
        with keep_activations(self._config, device):
            hidden_ND = hidden_states(self._backbone, batch, device)
        scores: Tensor = self._classifier.score(hidden_ND[(lengths_S.cumsum(0) - 1).to(device)])
        return scores.squeeze(-1)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=self._config.dtype == "bfloat16")


@contextmanager
def _moved(head: nn.Module) -> Iterator[None]:
    """Inside, random numbers are added to the head: scores of a new one, all zeros, could not differ."""
    before = [parameter.detach().clone() for parameter in head.parameters()]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            noise = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
            parameter.add_(noise.to(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(head.parameters(), before, strict=True):
                parameter.copy_(value)


@dataclass(frozen=True, slots=True)
class _ScoreReading:
    """Scores read at the last token that predicts."""

    head: ScoringHead

    def learned(self, batch: PackedBatch) -> Sequence[Tensor]:
        return list(torch.split(self.head.last_scores(batch), 1))

    def plain(self, sample: TrainingSample) -> tuple[Tensor, float]:
        model = base_model(self.head.model)
        ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids[:-1]]])
        score = model(input_ids=ids.to(next(model.parameters()).device), use_cache=False).logits[0]
        return score, max(1.0, float(score.detach().abs()))


@dataclass(frozen=True, slots=True)
class RewardModelObjective:
    """The head with the config's loss and the centring term."""

    head: ScoringHead
    config: RewardModelConfig

    @property
    def model(self) -> nn.Module:
        return self.head.model

    def score(self, samples: Sequence[TrainingSample]) -> Tensor:
        return self.head.score(samples)

    def loss(self, raw_K: Tensor, ranking: Ranking) -> Scored:
        if self.config.loss == "plackett_luce":
            loss = plackett_luce(raw_K, torch.tensor(ranking.ranks, device=raw_K.device))
        else:
            better, worse = (list(side) for side in zip(*ranking.pairs, strict=True))
            margin_P = self.config.margin_scale * raw_K.new_tensor(ranking.margins)
            loss = bradley_terry(raw_K[better], raw_K[worse], margin_P).mean()
        if self.config.centring:
            loss = loss + self.config.centring * centring(raw_K)
        return Scored(loss=loss, scores_K=raw_K)
