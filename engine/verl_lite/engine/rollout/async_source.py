"""Sampling as a stream: the engines never wait for a batch to finish.

The prompts of batch t start when update t - max_lag begins. A batch is the first `num_prompts` groups that
finish, whichever batch they were started for. New weights arrive in the middle of completions.

So a group is at most `max_lag` updates old when it is trained on, unless it is long and later groups
overtake it; `asynchrony.stale` says what happens then. The bound is AReaL's (arXiv:2505.24298,
staleness-aware training), counted in batches.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.stream import Prompts
from verl_lite.engine.observe.rollout_metrics import success_rates
from verl_lite.engine.observe.timeline import StageClock, Timeline
from verl_lite.engine.rollout.batch_source import Cancelled, SourceState, rollout_settings
from verl_lite.engine.rundir.interrupt import LOOK_S
from verl_lite.engine.types import PromptRow, Sampler, StepBatch
from verl_lite.plugins import Rollout, ScoredRollout
from verl_lite.plugins.scorer import Scorer, ScoringSession


@dataclass(slots=True)
class _OpenBatch:
    """A batch being filled with finished groups. `num_stale` counts groups; `took_s`: until it was full."""

    session: ScoringSession
    rollouts: list[Rollout] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)
    num_stale: int = 0
    took_s: float = 0.0


@dataclass(slots=True)
class _Stream:
    """All work in progress; a cancelled stream is replaced by a new one.

    waiting    prompts that were started and not yet trained on
    in_flight  groups that each thread has yet to deliver, by its key
    """

    threads: set[threading.Thread] = field(default_factory=set)
    is_cancelled: bool = False
    num_started: int = 0
    num_extra: int = 0
    num_taken: int = 0
    waiting: dict[str, PromptRow] = field(default_factory=dict)
    in_flight: dict[str, list[str]] = field(default_factory=dict)
    filling: _OpenBatch | None = None
    filling_step: int = 0
    full: dict[int, _OpenBatch] = field(default_factory=dict)
    num_dropped: int = 0
    last_full: float = field(default_factory=time.perf_counter)
    idle_since: float | None = None
    idle_s: float = 0.0

    @property
    def batches(self) -> list[_OpenBatch]:
        """The batches not trained on yet, in order of their steps."""
        full = [self.full[step] for step in sorted(self.full)]
        return [*full, self.filling] if self.filling is not None else full


class AsyncSource:
    """A stream of groups under changing weights, with one sampling thread per set of prompts.

    The sampler must accept new weights while generating, and concurrent `generate` calls.
    """

    def __init__(
        self,
        sampler: Sampler,
        scorer: Scorer,
        config: TrainConfig,
        prompts: Prompts,
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
        self._changed = threading.Condition()  # guards everything below
        self._saved: SourceState | None = None
        self._error: BaseException | None = None
        self._stream = _Stream()

    def next(self, step: int, clock: StageClock) -> StepBatch:
        with self._changed:
            self._resume_from_saved()
            stream, last = self._stream, min(step + self._config.asynchrony.max_lag, self._config.steps - 1)
            while stream.num_started <= last:
                self._start_next(str(stream.num_started), self._config.rollout.num_prompts)
                stream.num_started += 1
        with clock.stage("wait_rollouts"), self._changed:
            while step not in stream.full:
                self._raise_error()
                self._check()
                self._changed.wait(LOOK_S)
            batch = stream.full.pop(step)
            stream.num_taken = step + 1
            for group in batch.groups:
                del stream.waiting[group]
            idle_s, stream.idle_s = stream.idle_s, 0.0
            num_stale, stream.num_dropped = batch.num_stale + stream.num_dropped, 0
            epoch = self._prompts.epoch
        with clock.stage("wait_rewards"):
            scored = batch.session.finish()
        config = self._config
        with self._changed:
            self._prompts.observe(
                success_rates(scored.rows, config.accuracy_reward, config.evaluation.right_at)
            )
        metrics = {**scored.metrics, "rollout/stale_groups": float(num_stale)}
        return StepBatch(
            scored=replace(scored, metrics=metrics),
            groups=frozenset(batch.groups),
            epoch=epoch,
            seconds={"rollout": batch.took_s, "wait_training": idle_s},
            prompts=self._prompts.metrics,
        )

    def drain(self, clock: StageClock) -> None:
        """Nothing to wait for: the sampler accepts new weights at any time."""
        with self._changed:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _start_next(self, key: str, num_prompts: int) -> None:
        """Start sampling the next prompts; `key` names the batch they are for."""
        prompts = self._prompts.take(num_prompts, besides=list(self._stream.waiting.values()))
        self._stream.waiting.update((prompt.id, prompt) for prompt in prompts)
        self._start(key, prompts)

    def _start(self, key: str, prompts: Sequence[PromptRow]) -> None:
        stream = self._stream
        stream.in_flight[key] = [prompt.id for prompt in prompts]
        if stream.idle_since is not None:
            stream.idle_s += time.perf_counter() - stream.idle_since
            stream.idle_since = None
        thread = threading.Thread(target=self._generate, args=(key, prompts), name=f"rollouts {key}")
        stream.threads.add(thread)
        thread.start()

    def _generate(self, key: str, prompts: Sequence[PromptRow]) -> None:
        """A thread's work: generate for `prompts`, and add each finished group to a batch."""
        clock = StageClock(self._timeline, step=int(key.partition("+")[0]) + 1, worker=f"rollouts {key}")
        try:
            with clock.stage("rollout"):
                for group in self._sampler.generate(
                    prompts,
                    num_samples=self._config.rollout.num_samples,
                    settings=rollout_settings(self._config, key),
                    check=self._check_cancelled,
                ):
                    with self._changed:
                        self._check_cancelled()
                        self._stream.in_flight[key].remove(group[0].group)
                        self._add(group)
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the trainer's thread, at its next step
            with self._changed:
                self._error = self._error or error
        finally:
            with self._changed:
                self._thread_ended(key)

    def _thread_ended(self, key: str) -> None:
        stream = self._stream
        stream.threads.discard(threading.current_thread())
        if not stream.in_flight.get(key):
            stream.in_flight.pop(key, None)
        if not stream.threads:
            stream.idle_since = time.perf_counter()
        self._changed.notify_all()

    def _check_cancelled(self) -> None:
        if self._stream.is_cancelled:
            raise Cancelled

    def _add(self, group: Sequence[Rollout]) -> None:
        """Score a finished group in the batch being filled, or drop it by `asynchrony.stale`."""
        config, stream, name = self._config, self._stream, group[0].group
        lag = stream.filling_step - min(rollout.policy_version for rollout in group)
        is_stale = lag > config.asynchrony.max_lag
        if is_stale and config.asynchrony.stale == "drop":
            stream.num_dropped += 1
            del stream.waiting[name]
            stream.num_extra += 1
            self._start_next(f"{stream.filling_step}+{stream.num_extra}", 1)
            return
        if stream.filling is None:
            stream.filling = _OpenBatch(self._scorer.start(step=stream.filling_step))
        batch = stream.filling
        batch.num_stale += is_stale
        batch.groups.add(name)
        batch.rollouts += group
        batch.session.add(group)
        if len(batch.groups) == config.rollout.num_prompts:
            now = time.perf_counter()
            batch.took_s, stream.last_full = now - stream.last_full, now
            stream.full[stream.filling_step] = batch
            stream.filling, stream.filling_step = None, stream.filling_step + 1
            self._changed.notify_all()

    def state(self) -> SourceState:
        with self._changed:
            self._raise_error()
            if self._saved is not None:
                return self._saved
            stream = self._stream
            rows = [
                ScoredRollout(rollout=rollout, components={}, reward=None)
                for batch in stream.batches
                for rollout in batch.rollouts
            ]
            pending: dict[str, Any] = {
                "in_flight": {key: list(ids) for key, ids in stream.in_flight.items() if ids},
                "handed_out": stream.num_started,
                "extra": stream.num_extra,
                "taken": stream.num_taken,
            }
            plain = {"prompts": self._prompts.state_dict(), "pending": pending}
            return SourceState(plain=plain, rows=rows)

    def restore(self, state: SourceState) -> None:
        """Finished groups are scored again and trained on; unfinished ones are sampled again."""
        self._cancel()
        self._prompts.load_state_dict(state.plain["prompts"])
        self._saved = state

    def _resume_from_saved(self) -> None:
        state, self._saved = self._saved, None
        pending = None if state is None else state.plain.get("pending")
        if state is None or pending is None:
            return
        stream = self._stream
        stream.num_started, stream.num_extra = pending["handed_out"], pending["extra"]
        stream.num_taken = stream.filling_step = pending["taken"]
        groups: dict[str, list[Rollout]] = {}
        for row in state.rows:
            groups.setdefault(row.rollout.group, []).append(row.rollout)
        cut_off = {key: self._prompts.find(ids) for key, ids in pending["in_flight"].items()}
        found = [*self._prompts.find(list(groups)), *(one for some in cut_off.values() for one in some)]
        stream.waiting.update((prompt.id, prompt) for prompt in found)
        for group in groups.values():
            self._add(group)
        for key, prompts in cut_off.items():
            self._start(key, prompts)

    def _cancel(self) -> None:
        with self._changed:
            self._stream.is_cancelled = True
            threads = list(self._stream.threads)
        for thread in threads:
            thread.join()
        for batch in self._stream.batches:
            batch.session.cancel()
        self._error, self._stream = None, _Stream()

    def close(self) -> None:
        self._cancel()
