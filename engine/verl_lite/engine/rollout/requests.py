"""One request per sequence: what a sampler sends to an engine, and how the answers become rollouts.

Each completion is a request with its own seed, so its tokens depend only on the weights and that seed, not
on the engine or its other requests.
"""

import queue
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from verl_lite.engine.model.end_tokens import without_end
from verl_lite.engine.rundir.interrupt import next_of
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PromptRow
from verl_lite.plugins import Rollout, SamplerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRequest:
    """One completion to sample. It ends at the tokenizer's eos and at `end_ids`, unless `ignore_end`."""

    id: str
    prompt_ids: Sequence[int]
    settings: SamplerSettings
    end_ids: Sequence[int] = ()
    ignore_end: bool = False

    @property
    def seed(self) -> int:
        """`settings.seed`, which every request has."""
        assert self.settings.seed is not None
        return self.settings.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSequence:
    """The answer to the request with this id. Lists have one entry per completion token."""

    id: str
    token_ids: list[int]
    logprobs: list[float]
    token_versions: list[int]
    finish_reason: str


class GroupBuilder:
    """Makes a batch's requests, and groups of rollouts from the answers."""

    def __init__(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        decode: Callable[[list[int]], str],
        end_ids: Sequence[int] = (),
    ) -> None:
        self._num_samples = num_samples
        self._decode = decode
        self._end_ids = tuple(end_ids)
        self._groups: dict[str, list[Rollout]] = {}
        self._waiting = {
            f"{prompt_index}/{sample_index}": (
                prompt,
                sample_index,
                replace(settings, seed=derive_seed(settings.seed, prompt.id, sample_index)),
            )
            for prompt_index, prompt in enumerate(prompts)
            for sample_index in range(num_samples)
        }

    @property
    def requests(self) -> list[SequenceRequest]:
        """The requests without an answer, in the order of the prompts."""
        return [
            SequenceRequest(
                id=id, prompt_ids=tuple(prompt.prompt_ids), settings=settings, end_ids=self._end_ids
            )
            for id, (prompt, _, settings) in self._waiting.items()
        ]

    def add(self, finished: FinishedSequence) -> list[Rollout] | None:
        """The group that this sequence completes, by sample_index; None if it is still incomplete."""
        prompt, sample_index, settings = self._waiting.pop(finished.id)
        group = self._groups.setdefault(finished.id.rpartition("/")[0], [])
        group.append(self._rollout(prompt, sample_index, settings, finished))
        if len(group) < self._num_samples:
            return None
        return sorted(group, key=lambda rollout: rollout.sample_index)

    def completed(self, finished: Iterable[FinishedSequence]) -> Iterator[list[Rollout]]:
        """Each group as soon as `finished` brings its last sequence."""
        for sequence in finished:
            if (group := self.add(sequence)) is not None:
                yield group

    def _rollout(
        self, prompt: PromptRow, sample_index: int, settings: SamplerSettings, finished: FinishedSequence
    ) -> Rollout:
        versions = finished.token_versions
        return Rollout(
            id=f"{prompt.id}/{sample_index}",
            group=prompt.id,
            sample_index=sample_index,
            prompt=prompt.messages,
            prompt_ids=prompt.prompt_ids,
            completion=self._decode(without_end(finished.token_ids, self._end_ids)),
            completion_ids=finished.token_ids,
            logprobs=finished.logprobs,
            finish_reason=finished.finish_reason,
            reference=prompt.reference,
            columns=prompt.columns,
            policy_version=versions[0],
            token_versions=() if versions[0] == versions[-1] else versions,
            sampling=settings,
        )


Result = FinishedSequence | Exception | None  # None only wakes


class QueueStream:
    """A SequenceStream whose sequences are sampled elsewhere; `results` brings them, or errors to raise."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self.num_unfinished = 0
        self._check = check

    @abstractmethod
    def send(self, requests: Sequence[SequenceRequest]) -> None:
        """Start these elsewhere."""

    @abstractmethod
    def drop(self) -> None:
        """Stop what has not ended."""

    def add(self, requests: Sequence[SequenceRequest]) -> None:
        self.num_unfinished += len(requests)
        self.send(requests)

    def step(self) -> list[FinishedSequence]:
        arrived = [next_of(self.results, self._check)]
        while not self.results.empty():
            arrived.append(self.results.get())
        for result in arrived:
            if isinstance(result, Exception):
                raise result
        finished = [result for result in arrived if isinstance(result, FinishedSequence)]
        self.num_unfinished -= len(finished)
        return finished

    def wake(self) -> None:
        self.results.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
