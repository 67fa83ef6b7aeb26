"""Sampling one step ahead: while update t runs, a thread makes the batch of step t + 1 with version t.

Weights load between batches, so each batch has one version. At the end of a step nothing runs: the next
batch is complete and is saved in the checkpoint with its scores.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError as NotYet
from dataclasses import replace

from verl_lite.engine.data.stream import Prompts
from verl_lite.engine.observe.timeline import StageClock, Timeline
from verl_lite.engine.rollout.batch_source import Cancelled, MakeBatch, SourceState
from verl_lite.engine.rundir.interrupt import LOOK_S, StopRequested
from verl_lite.engine.types import StepBatch, never_stop
from verl_lite.plugins import ScoredBatch


class PrefetchSource:
    """Makes the next batch in a thread while a step trains; `num_steps` is the length of the run.

    Ctrl-C does not stop the thread: the batch is finished and saved, so that resuming is exact.
    """

    def __init__(
        self,
        make_batch: MakeBatch,
        prompts: Prompts,
        *,
        num_steps: int,
        check: Callable[[], None],
        timeline: Timeline | None = None,
    ) -> None:
        self._make_batch = make_batch
        self._prompts = prompts
        self._num_steps = num_steps
        self._check = check
        self._timeline = timeline
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rollouts")
        self._running: Future[StepBatch] | None = None
        self._ready: StepBatch | None = None
        self._position = prompts.state_dict()
        self._cancelled = False
        self._idle_since: float | None = None

    def next(self, step: int, clock: StageClock) -> StepBatch:
        clock.seconds["wait_rollouts"] = 0.0
        if self._ready is None:  # the run's first batch, or one that was stopped
            self._begin(step)
            self._wait(clock, check=self._check)
        batch, self._ready = self._ready, None
        assert batch is not None
        if step + 1 < self._num_steps:
            self._begin(step + 1)
        return batch

    def drain(self, clock: StageClock) -> None:
        if self._running is not None:
            self._wait(clock, check=never_stop)

    def _begin(self, step: int) -> None:
        self._position = self._prompts.state_dict()
        idle_s = 0.0 if self._idle_since is None else time.perf_counter() - self._idle_since
        self._running = self._thread.submit(self._make, step, idle_s)

    def _make(self, step: int, idle_s: float) -> StepBatch:
        clock = StageClock(self._timeline, step=step + 1, worker="rollouts")
        batch = self._make_batch(step, clock, check=self._check_cancelled)
        self._idle_since = time.perf_counter()
        return replace(batch, seconds={**clock.seconds, "wait_training": idle_s})

    def _wait(self, clock: StageClock, *, check: Callable[[], None]) -> None:
        assert self._running is not None
        with clock.stage("wait_rollouts"):
            while True:
                try:
                    self._ready = self._running.result(timeout=LOOK_S)
                    break
                except NotYet:
                    if self._running.done():  # just now, or it raised a TimeoutError itself
                        self._ready = self._running.result()
                        break
                try:
                    check()
                except StopRequested:
                    self._cancel()
                    raise
        self._running = None

    def _cancel(self) -> None:
        """Cancel the running batch and return its prompts."""
        self._cancelled = True
        assert self._running is not None
        self._running.exception()  # waits for Cancelled, or for an error that no longer matters
        self._running, self._cancelled = None, False
        self._prompts.load_state_dict(self._position)

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise Cancelled

    def state(self) -> SourceState:
        if self._ready is None:
            return SourceState(plain={"prompts": self._prompts.state_dict()})
        batch = self._ready
        pending = {
            "groups": sorted(batch.groups),
            "metrics": dict(batch.scored.metrics),
            "num_rounds": batch.num_rounds,
            "epoch": batch.epoch,
            "seconds": dict(batch.seconds),
            "prompts": dict(batch.prompts),
            "num_replayed": len(batch.replayed),
        }
        plain = {"prompts": self._prompts.state_dict(), "pending": pending}
        return SourceState(plain=plain, rows=[*batch.scored.rows, *batch.replayed])

    def restore(self, state: SourceState) -> None:
        if self._running is not None:
            self._cancel()
        self._prompts.load_state_dict(state.plain["prompts"])
        self._ready, pending = None, state.plain.get("pending")
        if pending is not None:
            num_fresh = len(state.rows) - pending.get("num_replayed", 0)
            self._ready = StepBatch(
                scored=ScoredBatch(rows=state.rows[:num_fresh], metrics=pending["metrics"]),
                groups=frozenset(pending["groups"]),
                num_rounds=pending["num_rounds"],
                epoch=pending["epoch"],
                seconds=pending["seconds"],
                replayed=state.rows[num_fresh:],
                prompts=pending.get("prompts", {}),
            )

    def close(self) -> None:
        self._cancelled = True
        self._thread.shutdown(wait=True)
