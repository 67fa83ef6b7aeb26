"""Sequences that are sampled while their caller adds more: what every sampler offers, and groups from it.

A prompt's group is yielded when its last completion ends, so rewards are computed during generation.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from verl_lite.engine.rollout.requests import FinishedSequence, GroupBuilder, SequenceRequest
from verl_lite.engine.types import PromptRow, Tokenizer, never_stop
from verl_lite.plugins import Rollout, SamplerSettings


class SequenceStream(AbstractContextManager["SequenceStream"], Protocol):
    """Leaving it drops the sequences that have not ended."""

    @property
    def num_unfinished(self) -> int:
        """Sequences that no step has returned yet."""

    def add(self, requests: Sequence[SequenceRequest]) -> None:
        """Sample these too; their ids are unique within the stream."""

    def step(self) -> list[FinishedSequence]:
        """Sample on; returns those that ended, which may be none. Raises what the stream's `check` raises."""

    def wake(self) -> None:
        """End a step that waits, from another thread."""


class StreamSampler:
    """The half of a Sampler that makes requests of prompts and rollouts of what a stream samples."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids)

    @abstractmethod
    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> SequenceStream:
        """A stream of sequences sampled by `settings`, up to each request's own seed and token limit.

        `check` is called several times per second; an exception from it ends the sampling.
        """

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate. Each request's seed is derived from `settings.seed`."""
        groups = GroupBuilder(
            prompts, num_samples=num_samples, settings=settings, decode=self.decode, end_ids=self.end_ids
        )
        with self.stream(settings, check) as stream:
            stream.add(groups.requests)
            while stream.num_unfinished:
                yield from groups.completed(stream.step())

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of sampled tokens, as rewards see it."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))
