"""A sampler and a learner whose speed can be set, for tests and measurements.

The sampler's engines are threads that sleep `step_s` for one token of all their sequences, as an engine with
continuous batching would. The tokens are random, so there is nothing to learn from them.
"""

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from verl_lite.engine.learner.learner import Learner
from verl_lite.engine.rollout.requests import FinishedSequence, GroupBuilder
from verl_lite.engine.rundir.interrupt import next_of
from verl_lite.engine.types import PromptRow, Tokenizer, TrainingSample, UpdateStats, WeightSource, never_stop
from verl_lite.plugins import Rollout, SamplerSettings


@dataclass(slots=True, eq=False)
class _Sequence:
    id: str
    token_ids: list[int]
    done: "SimpleQueue[_Sequence]"
    versions: list[int] = field(default_factory=list)


class FakeSampler:
    """A Sampler without a model: `num_engines` threads with `num_slots` sequences each.

    `length` maps a completion's seed to its number of tokens. New weights arrive in the middle of
    completions, and every token carries its version. Any number of `generate` calls may run at once.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        length: Callable[[int], int],
        num_engines: int = 1,
        num_slots: int = 64,
        step_s: float = 0.001,
    ) -> None:
        self._decode = partial(tokenizer.decode, skip_special_tokens=True)
        self._num_tokens = len(tokenizer)
        self._logprob = -math.log(len(tokenizer))
        self._length = length
        self._num_slots = num_slots
        self._step_s = step_s
        self._waiting: deque[_Sequence] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.version = 0
        self._threads = [threading.Thread(target=self._engine) for _ in range(num_engines)]
        for thread in self._threads:
            thread.start()

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate."""
        done: SimpleQueue[_Sequence] = SimpleQueue()
        groups = GroupBuilder(prompts, num_samples=num_samples, settings=settings, decode=self._decode)
        sequences = []
        for request in groups.requests:
            chooser = random.Random(request.seed)
            ids = [chooser.randrange(self._num_tokens) for _ in range(self._length(request.seed))]
            sequences.append(_Sequence(request.id, ids, done))
        with self._changed:
            self._waiting.extend(sequences)
            self._changed.notify_all()
        try:
            yield from groups.completed(self._finished(next_of(done, check)) for _ in sequences)
        finally:
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
                    sequence.done.put(sequence)
            running = [one for one in running if len(one.versions) < len(one.token_ids)]

    def _finished(self, sequence: _Sequence) -> FinishedSequence:
        return FinishedSequence(
            id=sequence.id,
            token_ids=sequence.token_ids,
            logprobs=[self._logprob] * len(sequence.token_ids),
            token_versions=sequence.versions,
            finish_reason="length",
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


class SlowedLearner(Learner):
    """A real learner whose updates take at least `update_s` seconds: it sleeps for the rest."""

    update_s = 0.0

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        started = time.perf_counter()
        stats = super().update(samples)
        time.sleep(max(self.update_s - (time.perf_counter() - started), 0.0))
        return stats
