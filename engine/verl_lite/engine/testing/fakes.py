"""A sampler and a learner whose speed can be set, for tests and measurements.

The sampler's engines are threads that sleep `step_s` for one token of all their sequences, as an engine with
continuous batching would. The tokens are random, so there is nothing to learn from them.
"""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from verl_lite.engine.learner.learner import Learner
from verl_lite.engine.rollout.requests import FinishedSequence, QueueStream, Result, SequenceRequest
from verl_lite.engine.rollout.streams import SequenceStream, StreamSampler
from verl_lite.engine.types import Tokenizer, TrainingSample, UpdateStats, WeightSource
from verl_lite.errors import VerlLiteError
from verl_lite.plugins import SamplerSettings


@dataclass(slots=True, eq=False)
class _Sequence:
    request: SequenceRequest
    token_ids: Sequence[int]
    done: "SimpleQueue[Result]"
    versions: list[int] = field(default_factory=list)


class FakeSampler(StreamSampler):
    """A Sampler without a model: `num_engines` threads with `num_slots` sequences each.

    `length` maps a completion's seed to its number of random tokens, whatever the request's limit; `write`
    has a request's tokens instead, which end at one of `end_ids` or were cut. New weights arrive in the
    middle of completions, and every token carries its version. Any number of `generate` calls may run at
    once.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        length: Callable[[int], int] | None = None,
        write: Callable[[SequenceRequest], Sequence[int]] | None = None,
        end_ids: Sequence[int] = (),
        num_engines: int = 1,
        num_slots: int = 64,
        step_s: float = 0.001,
    ) -> None:
        super().__init__(tokenizer, end_ids)
        self._logprob = -math.log(len(tokenizer))
        self._write = write or partial(
            _random_tokens, length=length or (lambda seed: 1), below=len(tokenizer)
        )
        self._num_slots = num_slots
        self._step_s = step_s
        self._waiting: deque[_Sequence] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.version = 0
        self._threads = [threading.Thread(target=self._engine) for _ in range(num_engines)]
        for thread in self._threads:
            thread.start()

    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> SequenceStream:
        return _FakeStream(self, check)

    def start(self, requests: Sequence[SequenceRequest], done: "SimpleQueue[Result]") -> None:
        """Sample these; each ends in `done`."""
        sequences = [_Sequence(request, self._write(request), done) for request in requests]
        with self._changed:
            self._waiting.extend(sequences)
            self._changed.notify_all()

    def stop(self, done: "SimpleQueue[Result]") -> None:
        """Forget what waits for its turn and would end in `done`."""
        with self._changed:
            self._waiting = deque(one for one in self._waiting if one.done is not done)

    def _engine(self) -> None:
        running: list[_Sequence] = []
        while True:
            with self._changed:
                while not self._waiting and not running and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                # at most an even share of what is waiting: the rest is for the other engines
                share = math.ceil(len(self._waiting) / len(self._threads))
                for _ in range(min(self._num_slots - len(running), share)):
                    running.append(self._waiting.popleft())
            time.sleep(self._step_s)
            for sequence in running:
                sequence.versions.append(self.version)
                if len(sequence.versions) == len(sequence.token_ids):
                    sequence.done.put(self._result(sequence))
            running = [one for one in running if len(one.versions) < len(one.token_ids)]

    def _result(self, sequence: _Sequence) -> Result:
        try:
            return self._finished(sequence)
        except VerlLiteError as error:  # raised again by whoever waits for the sequence
            return error

    def _finished(self, sequence: _Sequence) -> FinishedSequence:
        return FinishedSequence(
            id=sequence.request.id,
            token_ids=list(sequence.token_ids),
            logprobs=[self._logprob] * len(sequence.token_ids),
            token_versions=sequence.versions,
            finish_reason="stop" if sequence.token_ids[-1] in sequence.request.end_ids else "length",
        )

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Those of a uniform policy, which the random tokens come from."""
        return [self._logprob] * (len(token_ids) - 1)

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        """Takes the version only: there are no weights, so a canary has nothing to compare."""
        self.version = version
        return 0.0

    def sleep(self) -> None:
        """Nothing to free."""

    def wake(self) -> None:
        """See sleep."""

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()


def _random_tokens(request: SequenceRequest, *, length: Callable[[int], int], below: int) -> list[int]:
    chooser = random.Random(request.seed)
    return [chooser.randrange(below) for _ in range(length(request.seed))]


class _FakeStream(QueueStream):
    def __init__(self, sampler: FakeSampler, check: Callable[[], None]) -> None:
        super().__init__(check)
        self._sampler = sampler

    def send(self, requests: Sequence[SequenceRequest]) -> None:
        self._sampler.start(requests, self.results)

    def drop(self) -> None:
        self._sampler.stop(self.results)


class SlowedLearner(Learner):
    """A real learner whose updates take at least `update_s` seconds: it sleeps for the rest."""

    update_s = 0.0

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        started = time.perf_counter()
        stats = super().update(samples)
        time.sleep(max(self.update_s - (time.perf_counter() - started), 0.0))
        return stats
