"""The queue between requests and the scorer: bounded, merged into batches, with a deadline per request.

Requests of one step are scored together, in the order in which they came. A batch that fails as a whole
(an `abort` policy, a row without a reward for its source) is scored again request by request, so that
nobody pays for another's mistake.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from verl_lite.errors import DataError, VerlLiteError
from verl_lite.plugins.composite import RewardsConfig
from verl_lite.plugins.contract import Component
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoredRollout, ScoreOutcome
from verl_lite.plugins.scorer import Scorer
from verl_lite.plugins.serving.metrics import ServiceMetrics

_NOT_ASKED = Score.failed(ScoreOutcome.ABSTAIN, "not asked for", not_run="other reward")
_MAX_RETRY_AFTER_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """Limits of a reward server.

    workers             processes for isolated rewards; None for one per core
    max_batch           rollouts scored together; one request may have more
    batch_wait_s        how long a batch waits for further requests
    concurrent_batches  batches scored at a time
    max_queued          rollouts that may wait; past it a request gets 503 and Retry-After
    max_request_mb      size of a request's body; past it it gets 413
    timeout_s           the longest that a request may take; then it gets 504
    end_s               how long requests in flight may take when the server ends
    token               what clients must send as `Authorization: Bearer TOKEN`; "" for none
    dropped             the number for a dropped sample in the trainers' shapes; None is an error there
    """

    workers: int | None = None
    max_batch: int = 256
    batch_wait_s: float = 0.002
    concurrent_batches: int = 2
    max_queued: int = 20_000
    max_request_mb: float = 32.0
    timeout_s: float = 300.0
    end_s: float = 60.0
    token: str = field(default="", repr=False)
    dropped: float | None = None


class BusyError(VerlLiteError):
    """The queue is full; `retry_after_s` is when to try again."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LateError(VerlLiteError):
    """A request was not answered by its deadline."""


@dataclass(slots=True, eq=False)
class _Request:
    rollouts: Sequence[Rollout]
    step: int
    only: str
    answer: "asyncio.Future[list[ScoredRollout]]"

    @property
    def key(self) -> tuple[int, str]:
        return self.step, self.only


class RewardService:
    """Scores requests with one Scorer. `async with` starts it; the end waits for what was accepted."""

    def __init__(self, config: RewardsConfig, options: ServingOptions) -> None:
        # The caller's own breaker counts failures; ours would stop one client because of another.
        off = {"max_error_fraction": 1.0, "max_timeout_fraction": 1.0}
        scoring = config.scoring.model_copy(update=off)
        self.config = config.model_copy(update={"scoring": scoring})
        self.options = options
        self.metrics = ServiceMetrics()
        self._scorer = Scorer(self.config, workers=options.workers)
        self.components = {component.name: component for component in self._scorer.components}
        self._compares_groups = any(part.definition.form == "group" for part in self.components.values())
        self._waiting: deque[_Request] = deque()
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._rate = 100.0  # rollouts per second, smoothed

    async def __aenter__(self) -> "RewardService":
        await asyncio.to_thread(self._scorer.__enter__)
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(self.options.concurrent_batches)]
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._waiting or self.metrics.in_flight:
            await asyncio.sleep(0.01)
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)
        await asyncio.to_thread(self._scorer.__exit__, None, None, None)

    def needs_of(self, only: str) -> list[Component]:
        """The component `only` and those its gates read, or all for ""; DataError for another name."""
        if not only:
            return list(self.components.values())
        if only not in self.components:
            raise DataError(f"there is no reward {only!r}; there are: {', '.join(self.components)}")
        wanted = {only}
        while more := {need for name in wanted for need in self.components[name].needs} - wanted:
            wanted |= more
        return [self.components[name] for name in self.components if name in wanted]

    async def score(
        self, rollouts: Sequence[Rollout], *, step: int = 0, only: str = ""
    ) -> list[ScoredRollout]:
        """The rollouts scored, in their order; with `only` the other components are not run.

        Raises BusyError when the queue is full, LateError at the deadline, and what Scorer.score raises.
        """
        self.needs_of(only)
        if not rollouts:
            return []
        queued = self.metrics.queued_rollouts
        if queued and queued + len(rollouts) > self.options.max_queued:
            wait_s = min(max(math.ceil(queued / self._rate), 1), _MAX_RETRY_AFTER_S)
            raise BusyError(f"{queued:,} rollouts are waiting; try again in {wait_s} s", wait_s)
        request = _Request(rollouts, step, only, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self.metrics.queued_rollouts += len(rollouts)
        self._arrived.set()
        try:
            async with asyncio.timeout(self.options.timeout_s):
                return await request.answer
        except TimeoutError:
            raise LateError(f"not scored within {self.options.timeout_s:g} s") from None

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            if self.metrics.queued_rollouts < self.options.max_batch:
                await asyncio.sleep(self.options.batch_wait_s)
            batch = self._next_batch()
            if not batch:
                continue
            self.metrics.in_flight += 1
            try:
                await self._score_batch(batch)
            finally:
                self.metrics.in_flight -= 1

    def _next_batch(self) -> list[_Request]:
        """The first request and what may be scored with it; requests given up meanwhile are left out."""
        batch: list[_Request] = []
        groups: set[str] = set()
        size = 0
        while self._waiting:
            request = self._waiting[0]
            own = {rollout.group for rollout in request.rollouts} if self._compares_groups else set()
            fits = size + len(request.rollouts) <= self.options.max_batch and not own & groups
            if batch and (request.key != batch[0].key or not fits):
                break
            self._waiting.popleft()
            self.metrics.queued_rollouts -= len(request.rollouts)
            if request.answer.done():
                continue
            batch.append(request)
            groups |= own
            size += len(request.rollouts)
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _score_batch(self, batch: Sequence[_Request]) -> None:
        rollouts = [rollout for request in batch for rollout in request.rollouts]
        started = time.perf_counter()
        try:
            rows = await asyncio.to_thread(self._score, rollouts, batch[0].step, batch[0].only)
        except Exception as error:  # noqa: BLE001 - passed on to whoever asked
            if len(batch) > 1:
                for request in batch:
                    await self._score_batch([request])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        seconds = max(time.perf_counter() - started, 1e-6)
        self._rate += 0.2 * (len(rollouts) / seconds - self._rate)
        self.metrics.add_batch(rows)
        left = iter(rows)
        for request in batch:
            own = [next(left) for _ in request.rollouts]
            if not request.answer.done():  # the client has gone
                request.answer.set_result(own)

    def _score(self, rollouts: Sequence[Rollout], step: int, only: str) -> list[ScoredRollout]:
        known: Sequence[dict[str, Score]] = ()
        if only:
            asked = {component.name for component in self.needs_of(only)}
            skipped = dict.fromkeys([name for name in self.components if name not in asked], _NOT_ASKED)
            known = [skipped] * len(rollouts) if skipped else ()
        return self._scorer.score_rows(rollouts, step=step, known=known)
