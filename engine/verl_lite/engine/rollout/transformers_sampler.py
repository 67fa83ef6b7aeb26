"""Rollouts from `transformers.generate`: the sampler for machines without vLLM.

Sampling is exact, with one generator per completion: its Gumbel noise is added to the log-probabilities,
and `generate` takes the largest. So a completion depends on its seed and the weights, not on the rest of the
batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from verl_lite.engine.config.train import RolloutConfig
from verl_lite.engine.model.end_tokens import without_end
from verl_lite.engine.model.folder import pad_token_id
from verl_lite.engine.model.weights import base_model
from verl_lite.engine.rollout.canary import TOLERANCES, Canary
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PromptRow, WeightSource, never_stop
from verl_lite.plugins import Rollout, SamplerSettings

__all__ = ["TransformersSampler"]

BATCH_ROWS = 256


class TransformersSampler:
    """A Sampler with its own copy of the model: on the learner's, a failed sync would go unnoticed.

    Up to `batch_rows` completions are generated at once, for prompts of equal length.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: RolloutConfig,
        *,
        canary_ids: Sequence[int],
        end_ids: Sequence[int] = (),
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._end_ids = list(dict.fromkeys([tokenizer.eos_token_id, *end_ids]))
        self._batch_rows = batch_rows
        self._version = 0
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        self.canary = Canary(canary_ids, tolerance=config.canary_tolerance or TOLERANCES[dtype])

    @property
    def version(self) -> int:
        return self._version

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate. Each completion's seed is derived from `settings.seed`."""
        prompts_at_once = max(self._batch_rows // num_samples, 1)
        by_length: dict[int, list[PromptRow]] = {}
        for prompt in prompts:  # equal lengths together: without padding, none can change a result
            by_length.setdefault(len(prompt.prompt_ids), []).append(prompt)
        for same in by_length.values():
            for start in range(0, len(same), prompts_at_once):
                batch = same[start : start + prompts_at_once]
                yield from self._generate_batch(batch, num_samples, settings, check)

    @torch.no_grad()
    def _generate_batch(
        self,
        prompts: Sequence[PromptRow],
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None],
    ) -> Iterator[list[Rollout]]:
        rows = [
            (prompt, index, derive_seed(settings.seed, prompt.id, index))
            for prompt in prompts
            for index in range(num_samples)
        ]
        input_BT = torch.tensor([list(prompt.prompt_ids) for prompt, _, _ in rows], device=self._model.device)
        chooser = _Chooser(
            [seed for _, _, seed in rows], settings, num_prompt_tokens=input_BT.shape[1], check=check
        )
        with _own_generation_config(self._model):
            output_BT = self._model.generate(
                input_BT,
                attention_mask=torch.ones_like(input_BT),
                do_sample=False,
                max_new_tokens=settings.max_new_tokens,
                logits_processor=[chooser],
                eos_token_id=self._end_ids,
                pad_token_id=pad_token_id(self._tokenizer),
            )[:, input_BT.shape[1] :].tolist()
        logprobs_BT = torch.stack(chooser.logprobs, dim=1).tolist()
        rollouts = [
            self._rollout(prompt, index, replace(settings, seed=seed), ids, logprobs)
            for (prompt, index, seed), ids, logprobs in zip(rows, output_BT, logprobs_BT, strict=True)
        ]
        for start in range(0, len(rollouts), num_samples):
            yield rollouts[start : start + num_samples]

    def _rollout(
        self,
        prompt: PromptRow,
        sample_index: int,
        settings: SamplerSettings,
        ids: list[int],
        logprobs: list[float],
    ) -> Rollout:
        stops = [at for at, id in enumerate(ids) if id in self._end_ids]
        length = stops[0] + 1 if stops else len(ids)
        return Rollout(
            id=f"{prompt.id}/{sample_index}",
            group=prompt.id,
            sample_index=sample_index,
            prompt=prompt.messages,
            prompt_ids=prompt.prompt_ids,
            completion=self._tokenizer.decode(
                without_end(ids[:length], self._end_ids), skip_special_tokens=True
            ),
            completion_ids=ids[:length],
            logprobs=logprobs[:length],
            finish_reason="stop" if stops else "length",
            reference=prompt.reference,
            columns=prompt.columns,
            policy_version=self._version,
            sampling=settings,
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
        self._version = version
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


@contextmanager
def _own_generation_config(model: Any) -> Iterator[None]:
    """Inside, `generate` ignores the model's generation config: its penalties would change the policy.

    Passing a configuration to `generate` is not enough: it fills unset fields from the model's.
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

    def __init__(
        self,
        seeds: Sequence[int],
        settings: SamplerSettings,
        *,
        num_prompt_tokens: int,
        check: Callable[[], None],
    ) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._settings = settings
        self._num_prompt_tokens = num_prompt_tokens
        self._check = check
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, logits_BV: Tensor) -> Tensor:
        self._check()
        logprobs_BV = _processed(logits_BV.float(), self._settings).log_softmax(-1)
        choice_BV = logprobs_BV
        if self._settings.temperature > 0:
            noise = [torch.empty(logits_BV.shape[1]).exponential_(generator=g) for g in self._generators]
            # -log(exponential) is Gumbel noise, and the largest of log p + Gumbel noise is a sample of p
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
        # a token is dropped when the more likely ones already have probability top_p
        drop = probabilities.cumsum(-1) - probabilities >= settings.top_p
        logits_BV = logits_BV.masked_fill(drop.scatter(1, order, drop), -torch.inf)
    return logits_BV
