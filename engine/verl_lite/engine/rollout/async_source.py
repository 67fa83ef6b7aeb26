"""Sampling while training: batches one step ahead, and a stream of them bounded by `max_lag`.

Version v are the weights after v updates; the batch of step t turns version t into t + 1.

    in turn    batch t is sampled by version t                     (batches.py)
    OneAhead   batch t is sampled by version t - 1, while update t - 1 runs; batch 0 by version 0.
               Weights move between batches, so each has one version, and at the end of a step
               nothing runs: the next batch is complete and goes into the checkpoint with its scores
    Overlapped the engines never wait for a batch to end. Prompts of batch t are handed out as soon as
               update t - max_lag begins; a batch is the first `num_prompts` groups that finish, of
               whichever batch they were handed out for; weights arrive in the middle of completions

With prompts handed out like that, a group is at most `max_lag` updates old when it is trained on,
unless others that began later overtake it (it is long); what then happens is `asynchrony.stale`.
The bound is AReaL's (arXiv:2505.24298, staleness-aware training), counted in batches.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.prompts import PromptStream
from verl_lite.engine.observe.timeline import StageClock, Timeline
from verl_lite.engine.rollout.batch_source import BatchesState, Rounds, rollout_settings
from verl_lite.engine.rollout.dynamic_sampling import StepBatch, fill_batch
from verl_lite.engine.rundir.interrupt import LOOK_S, StopRequested
from verl_lite.engine.types import PromptRow, Sampler
from verl_lite.plugins import Rollout, ScoredBatch, ScoredRollout
from verl_lite.plugins.scorer import Scorer, ScoringSession

__all__ = ["OneAhead", "Overlapped"]


class GivenUp(Exception):
    """Ends a thread whose rollouts nobody wants any more."""


class OneAhead:
    """While a step trains, a thread samples and scores the next batch with the weights before the update.

    The background batch is not stopped by a Ctrl-C: it is finished and kept, so that a resumed run
    is exactly the run that was never stopped.
    """

    def __init__(
        self,
        sampler: Sampler,
        scorer: Scorer,
        config: TrainConfig,
        prompts: PromptStream,
        *,
        check: Callable[[], None],
        timeline: Timeline | None = None,
    ) -> None:
        self._rounds = Rounds(sampler, scorer, config, check=self._check_wanted)
        self._config = config
        self._prompts = prompts
        self._check = check
        self._timeline = timeline
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rollouts")
        self._running: Future[StepBatch] | None = None
        self._next: StepBatch | None = None
        self._position = prompts.state_dict()
        self._unwanted = False
        self._idle_since: float | None = None

    def take(self, step: int, clock: StageClock) -> StepBatch:
        clock.seconds["wait_rollouts"] = 0.0
        if self._next is None:  # the first batch of the run, or after a stop within it
            self._begin(step)
            self._wait(clock, check=self._check)
        batch, self._next = self._next, None
        assert batch is not None
        if step + 1 < self._config.steps:
            self._begin(step + 1)
        return batch

    def settle(self, clock: StageClock) -> None:
        if self._running is not None:
            self._wait(clock, check=lambda: None)

    def _begin(self, step: int) -> None:
        self._position = self._prompts.state_dict()
        idle_s = 0.0 if self._idle_since is None else time.perf_counter() - self._idle_since
        self._running = self._thread.submit(self._make, step, idle_s)

    def _make(self, step: int, idle_s: float) -> StepBatch:
        clock = StageClock(self._timeline, step=step + 1, worker="rollouts")
        batch = fill_batch(partial(self._rounds.sample, clock, step), self._prompts, self._config)
        self._idle_since = time.perf_counter()
        return replace(batch, seconds={**clock.seconds, "wait_training": idle_s})

    def _wait(self, clock: StageClock, *, check: Callable[[], None]) -> None:
        assert self._running is not None
        with clock.stage("wait_rollouts"):
            while True:
                try:
                    self._next = self._running.result(timeout=LOOK_S)
                    break
                except NotYet:
                    if self._running.done():  # since, or with a TimeoutError of its own
                        self._next = self._running.result()
                        break
                try:
                    check()
                except StopRequested:
                    self._give_up()
                    raise
        self._running = None

    def _give_up(self) -> None:
        """End the running batch; its prompts were not trained on."""
        self._unwanted = True
        assert self._running is not None
        self._running.exception()  # waits; GivenUp, or an error of a batch that counts for nothing
        self._running, self._unwanted = None, False
        self._prompts.load_state_dict(self._position)

    def _check_wanted(self) -> None:
        if self._unwanted:
            raise GivenUp

    def state(self) -> BatchesState:
        if self._next is None:
            return BatchesState(plain={"prompts": self._prompts.state_dict()})
        batch = self._next
        pending = {
            "groups": sorted(batch.groups),
            "metrics": dict(batch.scored.metrics),
            "num_rounds": batch.num_rounds,
            "epoch": batch.epoch,
            "seconds": dict(batch.seconds),
        }
        plain = {"prompts": self._prompts.state_dict(), "pending": pending}
        return BatchesState(plain=plain, rows=batch.scored.rows)

    def restore(self, state: BatchesState) -> None:
        if self._running is not None:
            self._give_up()
        self._prompts.load_state_dict(state.plain["prompts"])
        self._next, pending = None, state.plain.get("pending")
        if pending is not None:
            self._next = StepBatch(
                scored=ScoredBatch(rows=state.rows, metrics=pending["metrics"]),
                groups=frozenset(pending["groups"]),
                num_rounds=pending["num_rounds"],
                epoch=pending["epoch"],
                seconds=pending["seconds"],
            )

    def close(self) -> None:
        self._unwanted = True
        self._thread.shutdown(wait=True)


@dataclass(slots=True)
class Filling:
    """A batch that finished groups are put into, scored as they come. `num_stale` counts groups."""

    session: ScoringSession
    rollouts: list[Rollout] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)
    num_stale: int = 0
    took_s: float = 0.0


class Overlapped:
    """A stream of groups under changing weights; every batch handed out has a thread that collects it.

    The sampler must be one that takes new weights while it generates, and many `generate` at a time.
    """

    def __init__(
        self,
        sampler: Sampler,
        scorer: Scorer,
        config: TrainConfig,
        prompts: PromptStream,
        *,
        check: Callable[[], None],
        timeline: Timeline | None = None,
    ) -> None:
        self._sampler = sampler
        self._scorer = scorer
        self._config = config
        self._prompts = prompts
        self._check = check
        self._timeline = timeline
        self._news = threading.Condition()  # guards everything below
        self._saved: BatchesState | None = None
        self._error: BaseException | None = None
        self._clear()

    def _clear(self) -> None:
        self._threads: set[threading.Thread] = set()
        self._unwanted = False
        self._num_handed_out = self._num_extra = self._num_taken = 0
        self._waiting: dict[str, PromptRow] = {}  # handed out, not trained on
        self._in_flight: dict[str, list[str]] = {}  # a collecting thread's key -> ids of groups to come
        self._filling: Filling | None = None
        self._filling_step = 0
        self._full: dict[int, Filling] = {}
        self._num_dropped = 0
        self._last_full = time.perf_counter()
        self._idle_since: float | None = None
        self._idle_s = 0.0

    def take(self, step: int, clock: StageClock) -> StepBatch:
        limit = self._config.asynchrony.max_lag
        with self._news:
            self._go_on_from_saved()
            while self._num_handed_out < min(step + limit + 1, self._config.steps):
                self._hand_out(str(self._num_handed_out), self._config.rollout.num_prompts)
                self._num_handed_out += 1
        with clock.stage("wait_rollouts"), self._news:
            while step not in self._full:
                self._raise_error()
                self._check()
                self._news.wait(LOOK_S)
            batch = self._full.pop(step)
            self._num_taken = step + 1
            for group in batch.groups:
                del self._waiting[group]
            idle_s, self._idle_s = self._idle_s, 0.0
            num_stale, self._num_dropped = batch.num_stale + self._num_dropped, 0
            epoch = self._prompts.epoch
        with clock.stage("wait_rewards"):
            scored = batch.session.finish()
        metrics = {**scored.metrics, "rollout/stale_groups": float(num_stale)}
        return StepBatch(
            scored=replace(scored, metrics=metrics),
            groups=frozenset(batch.groups),
            epoch=epoch,
            seconds={"rollout": batch.took_s, "wait_training": idle_s},
        )

    def settle(self, clock: StageClock) -> None:
        """The sampler takes new weights at any time."""
        with self._news:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _hand_out(self, key: str, num_prompts: int) -> None:
        prompts = self._prompts.take(num_prompts, besides=list(self._waiting.values()))
        self._waiting.update((prompt.id, prompt) for prompt in prompts)
        self._start(key, prompts)

    def _start(self, key: str, prompts: Sequence[PromptRow]) -> None:
        self._in_flight[key] = [prompt.id for prompt in prompts]
        if self._idle_since is not None:
            self._idle_s += time.perf_counter() - self._idle_since
            self._idle_since = None
        thread = threading.Thread(target=self._collect, args=(key, prompts), name=f"rollouts {key}")
        self._threads.add(thread)
        thread.start()

    def _collect(self, key: str, prompts: Sequence[PromptRow]) -> None:
        """What a thread does: take in the groups of `prompts` as they finish."""
        clock = StageClock(self._timeline, step=int(key.partition("+")[0]) + 1, worker=f"rollouts {key}")
        try:
            with clock.stage("rollout"):
                for group in self._sampler.generate(
                    prompts,
                    num_samples=self._config.rollout.num_samples,
                    settings=rollout_settings(self._config, key),
                    check=self._check_wanted,
                ):
                    with self._news:
                        self._check_wanted()
                        self._in_flight[key].remove(group[0].group)
                        self._arrived(group)
        except GivenUp:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the trainer's thread, at its next step
            with self._news:
                self._error = self._error or error
        finally:
            with self._news:
                self._threads.discard(threading.current_thread())
                if not self._in_flight.get(key):
                    self._in_flight.pop(key, None)
                if not self._threads:
                    self._idle_since = time.perf_counter()
                self._news.notify_all()

    def _check_wanted(self) -> None:
        if self._unwanted:
            raise GivenUp

    def _arrived(self, group: Sequence[Rollout]) -> None:
        """Put a finished group into the batch that is being filled, or drop it as the rule says."""
        config, name = self._config, group[0].group
        lag = self._filling_step - min(rollout.policy_version for rollout in group)
        stale = lag > config.asynchrony.max_lag
        if stale and config.asynchrony.stale == "drop":
            self._num_dropped += 1
            del self._waiting[name]
            self._num_extra += 1
            self._hand_out(f"{self._filling_step}+{self._num_extra}", 1)
            return
        if self._filling is None:
            self._filling = Filling(self._scorer.start(step=self._filling_step))
        batch = self._filling
        batch.num_stale += stale
        batch.groups.add(name)
        batch.rollouts += group
        batch.session.add(group)
        if len(batch.groups) == config.rollout.num_prompts:
            now = time.perf_counter()
            batch.took_s, self._last_full = now - self._last_full, now
            self._full[self._filling_step] = batch
            self._filling, self._filling_step = None, self._filling_step + 1
            self._news.notify_all()

    def state(self) -> BatchesState:
        with self._news:
            self._raise_error()
            if self._saved is not None:
                return self._saved
            batches = [self._full[step] for step in sorted(self._full)]
            batches += [self._filling] if self._filling is not None else []
            rows = [
                ScoredRollout(rollout=rollout, components={}, reward=None)
                for batch in batches
                for rollout in batch.rollouts
            ]
            pending: dict[str, Any] = {
                "in_flight": {key: list(ids) for key, ids in self._in_flight.items() if ids},
                "handed_out": self._num_handed_out,
                "extra": self._num_extra,
                "taken": self._num_taken,
            }
            plain = {"prompts": self._prompts.state_dict(), "pending": pending}
            return BatchesState(plain=plain, rows=rows)

    def restore(self, state: BatchesState) -> None:
        """Finished groups are scored again and trained on; those cut off are sampled again first."""
        self._give_up()
        self._prompts.load_state_dict(state.plain["prompts"])
        self._saved = state

    def _go_on_from_saved(self) -> None:
        state, self._saved = self._saved, None
        pending = None if state is None else state.plain.get("pending")
        if state is None or pending is None:
            return
        self._num_handed_out, self._num_extra = pending["handed_out"], pending["extra"]
        self._num_taken = self._filling_step = pending["taken"]
        groups: dict[str, list[Rollout]] = {}
        for row in state.rows:
            groups.setdefault(row.rollout.group, []).append(row.rollout)
        cut_off = {key: self._prompts.find(ids) for key, ids in pending["in_flight"].items()}
        found = [*self._prompts.find(list(groups)), *(one for some in cut_off.values() for one in some)]
        self._waiting.update((prompt.id, prompt) for prompt in found)
        for group in groups.values():
            self._arrived(group)
        for key, prompts in cut_off.items():
            self._start(key, prompts)

    def _give_up(self) -> None:
        with self._news:
            self._unwanted = True
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        for batch in [*self._full.values(), *([self._filling] if self._filling is not None else [])]:
            batch.session.cancel()
        self._error = None
        self._clear()

    def close(self) -> None:
        self._give_up()
