"""Rollouts from `transformers.generate`: the sampler for machines without vLLM.

Sampling is exact, with one generator per completion: Gumbel noise is added to the log-probabilities, and
`generate` takes the largest. So a completion depends on its seed and the weights, not on its batch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor

from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.engine.model.folder import pad_token_id
from verl_lite.engine.model.weights import base_model
from verl_lite.engine.rollout.canary import Canary
from verl_lite.engine.rollout.requests import FinishedSequence, SequenceRequest
from verl_lite.engine.rollout.streams import SequenceStream, StreamSampler
from verl_lite.engine.types import PreTrainedModel, Tokenizer, WeightSource
from verl_lite.plugins import SamplerSettings

BATCH_ROWS = 256


class TransformersSampler(StreamSampler):
    """A Sampler with its own copy of the model: with the learner's, a failed sync would go unnoticed.

    Up to `batch_rows` completions are generated at once, for prompts of equal length.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        config: RolloutConfig,
        *,
        canary_ids: Sequence[int],
        end_ids: Sequence[int] = (),
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self._model = model.eval()
        self._pad_token_id = pad_token_id(tokenizer)
        super().__init__(tokenizer, list(dict.fromkeys([tokenizer.eos_token_id, *end_ids])))
        self.batch_rows = batch_rows
        self.version = 0
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        self.canary = Canary(canary_ids, dtype=dtype, tolerance=config.canary_tolerance)

    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> SequenceStream:
        return _BatchStream(self, settings, check)

    @torch.no_grad()
    def generate_batch(
        self, requests: Sequence[SequenceRequest], settings: SamplerSettings, check: Callable[[], None]
    ) -> list[FinishedSequence]:
        input_BT = torch.tensor([request.prompt_ids for request in requests], device=self._model.device)
        chooser = _Chooser([request.seed for request in requests], settings, check=check)
        with _own_generation_config(self._model):
            output_BT = self._model.generate(
                input_BT,
                attention_mask=torch.ones_like(input_BT),
                do_sample=False,
                max_new_tokens=max(request.settings.max_new_tokens for request in requests),
                logits_processor=[chooser],
                eos_token_id=list(self.end_ids),
                pad_token_id=self._pad_token_id,
            )[:, input_BT.shape[1] :].tolist()
        logprobs_BT = torch.stack(chooser.logprobs, dim=1).tolist()
        return [
            self._finished(request, ids, logprobs)
            for request, ids, logprobs in zip(requests, output_BT, logprobs_BT, strict=True)
        ]

    def _finished(self, request: SequenceRequest, ids: list[int], logprobs: list[float]) -> FinishedSequence:
        ids = ids[: request.settings.max_new_tokens]
        stops = [at for at, token in enumerate(ids) if token in self.end_ids]
        length = stops[0] + 1 if stops else len(ids)
        return FinishedSequence(
            id=request.id,
            token_ids=ids[:length],
            logprobs=logprobs[:length],
            token_versions=[self.version] * length,
            finish_reason="stop" if stops else "length",
        )

    @torch.no_grad()
    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        ids_1T = torch.tensor([list(token_ids)], device=self._model.device)
        logprobs_TV = self._model(ids_1T).logits[0, :-1].float().log_softmax(-1)
        chosen: list[float] = logprobs_TV.gather(1, ids_1T[0, 1:, None])[:, 0].tolist()
        return chosen

    @torch.no_grad()
    def load_weights(self, source: WeightSource, *, version: int) -> float:
        self._replace_weights(source)
        self.version = version
        return self.canary.check(source, self.token_logprobs(self.canary.token_ids), version=version)

    def _replace_weights(self, source: WeightSource) -> None:
        own = self._model.state_dict()
        for name, tensor in source.named_weights():
            own[name].copy_(tensor)

    def sleep(self) -> None:
        """Nothing to free: it holds only the weights."""

    def wake(self) -> None:
        """See sleep."""

    def close(self) -> None:
        self.__dict__.pop("_model", None)


class _BatchStream:
    """Sequences in batches of equal prompt lengths, as padding could change results."""

    def __init__(
        self, sampler: TransformersSampler, settings: SamplerSettings, check: Callable[[], None]
    ) -> None:
        self._sampler = sampler
        self._settings = settings
        self._check = check
        self._by_length: dict[int, list[SequenceRequest]] = defaultdict(list)

    @property
    def num_unfinished(self) -> int:
        return sum(map(len, self._by_length.values()))

    def add(self, requests: Sequence[SequenceRequest]) -> None:
        for request in requests:
            self._by_length[len(request.prompt_ids)].append(request)

    def step(self) -> list[FinishedSequence]:
        """One batch, to its end."""
        length = next(iter(self._by_length))
        waiting = self._by_length[length]
        batch = waiting[: self._sampler.batch_rows]
        del waiting[: self._sampler.batch_rows]
        if not waiting:
            del self._by_length[length]
        return self._sampler.generate_batch(batch, self._settings, self._check)

    def wake(self) -> None:
        """A batch cannot be interrupted."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._by_length.clear()


@contextmanager
def _own_generation_config(model: PreTrainedModel) -> Iterator[None]:
    """Inside, `generate` ignores the model's generation config, whose penalties would change the policy.

    Passing a config to `generate` is not enough: it fills unset fields from the model's.
    """
    from transformers import GenerationConfig

    causal = base_model(model)
    kept, causal.generation_config = causal.generation_config, GenerationConfig()
    try:
        yield
    finally:
        causal.generation_config = kept


class _Chooser:
    """Turns `generate`'s greedy choice into an exact sample, and keeps its log-probability."""

    def __init__(self, seeds: Sequence[int], settings: SamplerSettings, *, check: Callable[[], None]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._settings = settings
        self._check = check
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, logits_BV: Tensor) -> Tensor:
        self._check()
        logprobs_BV = _processed(logits_BV.float(), self._settings).log_softmax(-1)
        choice_BV = logprobs_BV
        if self._settings.temperature > 0:
            noise = [torch.empty(logits_BV.shape[1]).exponential_(generator=g) for g in self._generators]
            # -log(exponential) is Gumbel noise; the argmax of log p + Gumbel noise is a sample of p
            choice_BV = logprobs_BV - torch.stack(noise).log().to(logprobs_BV.device)
        chosen_B1 = choice_BV.argmax(-1, keepdim=True)
        self.logprobs.append(logprobs_BV.gather(1, chosen_B1)[:, 0].cpu())
        return choice_BV


def _processed(logits_BV: Tensor, settings: SamplerSettings) -> Tensor:
    """The logits after temperature, then top-k, then top-p."""
    if settings.temperature > 0:
        logits_BV = logits_BV / settings.temperature
    if settings.top_k:
        kth_B1 = logits_BV.topk(min(settings.top_k, logits_BV.shape[1])).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)
    if settings.top_p < 1:
        ordered, order = logits_BV.sort(descending=True)
        probabilities = ordered.softmax(-1)
        # drop a token if the more likely ones already have probability top_p
        drop = probabilities.cumsum(-1) - probabilities >= settings.top_p
        logits_BV = logits_BV.masked_fill(drop.scatter(1, order, drop), -torch.inf)
    return logits_BV
