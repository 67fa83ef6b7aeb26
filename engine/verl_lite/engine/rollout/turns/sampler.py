"""A Sampler whose rollouts are trajectories of several turns, over any sampler that offers streams.

Every turn is one more sequence of the same stream, and every answer of an environment is awaited on an event
loop of its own: while one trajectory waits for its tool, the others decode.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from verl_lite.engine.rollout.canary import Canary
from verl_lite.engine.rollout.streams import SequenceStream
from verl_lite.engine.rollout.turns.trajectory import Trajectory, TurnKit
from verl_lite.engine.rundir.interrupt import next_of
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PromptRow, Sampler, WeightSource, never_stop
from verl_lite.errors import EnvironmentFailed
from verl_lite.plugins import (
    EnvironmentHost,
    EnvironmentSession,
    Message,
    Rollout,
    SamplerSettings,
    StepResult,
)

CLOSE_S = 10.0  # the longest that the end of a batch waits for environments to close
Answer = Sequence[Message] | StepResult
Come = Answer | BaseException
Question = Callable[[], Coroutine[Any, Any, Answer]]
ResultT = TypeVar("ResultT")


class InnerSampler(Sampler, Protocol):
    """A sampler that offers streams; see rollout/streams.py."""

    canary: Canary
    end_ids: tuple[int, ...]

    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> SequenceStream: ...


class TurnsSampler:
    """A Sampler of trajectories over `inner`; it closes `inner` and `host`.

    With `in_step` no sequence is sampled on while an environment is asked, so that the batches of the inner
    sampler, and with them its results bit for bit, do not depend on how long environments take.
    """

    def __init__(
        self, inner: InnerSampler, host: EnvironmentHost, kit: TurnKit, *, in_step: bool = False
    ) -> None:
        self.inner = inner
        self._host = host
        self._kit = kit
        self._in_step = in_step
        self._asking = _EventLoop()

    @property
    def version(self) -> int:
        return self.inner.version

    @property
    def canary(self) -> Canary:
        return self.inner.canary

    @property
    def metrics(self) -> Mapping[str, float]:
        """Those of the inner sampler."""
        return dict(getattr(self.inner, "metrics", {}))

    def generate(
        self,
        prompts: Sequence[PromptRow],
        *,
        num_samples: int,
        settings: SamplerSettings,
        check: Callable[[], None] = never_stop,
    ) -> Iterator[list[Rollout]]:
        """See Sampler.generate. Seeds are derived as for single completions, then per turn.

        Raises EnvironmentFailed, after the last group, if too many trajectories have failed.
        """
        trajectories = [
            self._trajectory(prompt, f"{prompt_index}/{sample_index}", sample_index, settings)
            for prompt_index, prompt in enumerate(prompts)
            for sample_index in range(num_samples)
        ]
        groups: dict[str, list[Rollout]] = {}
        failures: list[str] = []
        with self.inner.stream(settings, check) as stream, _Asked(self._asking, stream, check) as asked:
            run = _Run(stream, asked, self._kit, self.inner.end_ids, in_step=self._in_step)
            for trajectory in run.all(trajectories):
                rollout = trajectory.rollout()
                failures += [trajectory.failure] if trajectory.failure else []
                group = groups.setdefault(trajectory.key.rpartition("/")[0], [])
                group.append(rollout)
                if len(group) == num_samples:
                    asked.send()  # whoever gets it may take a while
                    yield sorted(group, key=lambda one: one.sample_index)
        if len(failures) > self._kit.max_failed * len(trajectories):
            raise EnvironmentFailed(
                f"{len(failures)} of {len(trajectories)} trajectories have no valid end, and "
                f"scoring.max_error_fraction={self._kit.max_failed:g} allows fewer; the first: {failures[0]}"
            )

    def _trajectory(
        self, prompt: PromptRow, key: str, sample_index: int, settings: SamplerSettings
    ) -> Trajectory:
        seed = derive_seed(settings.seed, prompt.id, sample_index)
        row = {**prompt.columns, "prompt": list(prompt.messages)}
        return Trajectory(
            prompt,
            key=key,
            sample_index=sample_index,
            settings=replace(settings, seed=seed),
            kit=self._kit,
            session=self._host.open(row, seed=derive_seed(seed, "environment")),
        )

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self.inner.token_logprobs(token_ids)

    def load_weights(self, source: WeightSource, *, version: int) -> float:
        return self.inner.load_weights(source, version=version)

    def sleep(self) -> None:
        self.inner.sleep()

    def wake(self) -> None:
        self.inner.wake()

    def close(self) -> None:
        self._host.close()
        self._asking.close()
        self.inner.close()


class _Run:
    """The loop of turns of one batch."""

    def __init__(
        self,
        stream: SequenceStream,
        asked: "_Asked",
        kit: TurnKit,
        end_ids: Sequence[int],
        *,
        in_step: bool,
    ) -> None:
        self._stream = stream
        self._asked = asked
        self._kit = kit
        self._end_ids = end_ids
        self._in_step = in_step

    def all(self, trajectories: Sequence[Trajectory]) -> Iterator[Trajectory]:
        """Sample all of them; yields each when it has ended."""
        going = {trajectory.key: trajectory for trajectory in trajectories}
        for trajectory in trajectories:
            self._asked.ask(trajectory.key, trajectory.session.reset, trajectory.session)
        while going:
            is_idle = not self._stream.num_unfinished or (self._in_step and self._asked.num_open > 0)
            for key, answer in self._asked.take(wait=is_idle, all=self._in_step):
                yield from self._after(going, going[key], answer)
            if self._stream.num_unfinished and not (self._in_step and self._asked.num_open):
                for finished in sorted(self._stream.step(), key=lambda one: one.id):
                    trajectory = going[finished.id]
                    text = self._kit.renderer.text(finished.token_ids)
                    message = trajectory.sampled(finished, text)
                    if message is not None:
                        session = trajectory.session
                        self._asked.ask(trajectory.key, partial(session.step, message), session)
                    else:
                        yield from self._go_on(going, trajectory)

    def _after(
        self, going: dict[str, Trajectory], trajectory: Trajectory, answer: "Answer | EnvironmentFailed"
    ) -> Iterator[Trajectory]:
        if isinstance(answer, EnvironmentFailed):
            trajectory.fail(str(answer))
        elif isinstance(answer, StepResult):
            trajectory.answered(answer)
        else:
            trajectory.begin(answer)
        yield from self._go_on(going, trajectory)

    def _go_on(self, going: dict[str, Trajectory], trajectory: Trajectory) -> Iterator[Trajectory]:
        """Sample the trajectory's next turn; yields it if it has ended."""
        if not trajectory.reason:
            self._stream.add([trajectory.next_request(self._end_ids)])
            return
        del going[trajectory.key]
        self._asked.close(trajectory.session)
        yield trajectory


class _Asked:
    """The questions that one batch has put to its environments, and their answers as they come.

    Questions are sent together, and answers that come together wake the batch once.
    """

    def __init__(self, loop: "_EventLoop", stream: SequenceStream, check: Callable[[], None]) -> None:
        self._loop = loop
        self._stream = stream
        self._check = check
        self._unsent: list[tuple[str, Question]] = []
        self._sent: list[Future[None]] = []
        self._open: set[str] = set()
        self._come: list[tuple[str, Come]] = []  # of the event loop
        self._answers: SimpleQueue[Iterable[tuple[str, Come]]] = SimpleQueue()
        self._sessions: set[EnvironmentSession] = set()
        self._ended: list[EnvironmentSession] = []
        self._closing: list[Future[None]] = []

    @property
    def num_open(self) -> int:
        """Questions whose answers `take` has not returned."""
        return len(self._open)

    def ask(self, key: str, question: "Question", session: EnvironmentSession) -> None:
        """Ask at the next `send`."""
        self._sessions.add(session)
        self._open.add(key)
        self._unsent.append((key, question))

    def send(self) -> None:
        """Put the questions that wait to their environments, and close the sessions that have ended."""
        if self._unsent:
            self._sent = [batch for batch in self._sent if not batch.done()]
            self._sent.append(self._loop.start(self._answer_all(self._unsent)))
            self._unsent = []
        if self._ended:
            self._closing.append(self._loop.start(_close_all(self._ended)))
            self._ended = []

    async def _answer_all(self, questions: Sequence[tuple[str, "Question"]]) -> None:
        await asyncio.gather(*(self._answer(key, question) for key, question in questions))

    async def _answer(self, key: str, question: "Question") -> None:
        answer: Come
        try:
            answer = await question()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - `take` raises it
            answer = error
        if not self._come:  # what ends in the same round of the event loop is delivered with it
            asyncio.get_running_loop().call_soon(self._deliver)
        self._come.append((key, answer))

    def _deliver(self) -> None:
        come, self._come = self._come, []
        self._answers.put(come)
        self._stream.wake()

    def take(self, *, wait: bool, all: bool) -> list[tuple[str, "Answer | EnvironmentFailed"]]:
        """The answers that have come; with `wait` at least one, with `all` every one, by key."""
        self.send()
        taken: list[tuple[str, Come]] = []
        while len(taken) < len(self._open) and (not self._answers.empty() or all or (wait and not taken)):
            taken.extend(next_of(self._answers, self._check))
        self._open -= {key for key, _ in taken}
        return [(key, _valid(answer)) for key, answer in sorted(taken, key=lambda one: one[0])]

    def close(self, session: EnvironmentSession) -> None:
        """Close the session of a trajectory that has ended, at the next `send`, in the background."""
        self._sessions.discard(session)
        self._ended.append(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for batch in self._sent:
            batch.cancel()
        self._unsent = []
        self._ended += self._sessions
        self.send()
        for closing in self._closing:
            with suppress(CancelledError, TimeoutError):
                closing.result(timeout=CLOSE_S)


async def _close_all(sessions: Sequence[EnvironmentSession]) -> None:
    """Raises what is no failure of an environment, once all are closed."""
    for failure in await asyncio.gather(*(one.close() for one in sessions), return_exceptions=True):
        if failure is not None and not isinstance(failure, EnvironmentFailed):
            raise failure


def _valid(answer: "Come") -> "Answer | EnvironmentFailed":
    """The answer, or how the environment failed; any other error is ours and is raised."""
    if isinstance(answer, BaseException) and not isinstance(answer, EnvironmentFailed):
        raise answer
    return answer


class _EventLoop:
    """An event loop in a thread, started when it is first used."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def start(self, work: Coroutine[Any, Any, ResultT]) -> "Future[ResultT]":
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="turns", daemon=True)
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()
