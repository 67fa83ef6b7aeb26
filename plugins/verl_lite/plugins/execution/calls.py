"""Call a reward: its answers are checked, timed and retried; a failure becomes a score that says so.

One of the three borders where everything is caught: whatever a reward raises becomes the outcome
"error" of exactly the rows concerned, with the reason, and is counted in the metrics.
"""

import inspect
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence, Set

from pydantic import BaseModel

from verl_lite.plugins.contract import Component, RewardDefinition
from verl_lite.plugins.execution.results import TimedScore
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import NotAScoreError, Score, ScoreOutcome, to_score

BACKOFF_S = 0.25  # the pause before the first retry; each further one is twice as long
REASON_CHARS = 300
TRACEBACK_CHARS = 2000

CATCH_IN_PROCESS = (Exception, SystemExit)  # Ctrl-C still ends the program
CATCH_IN_WORKER = (BaseException,)


def bind(definition: RewardDefinition, options: BaseModel) -> Callable[[object], object]:
    """The reward as a function of the rollout(s) alone; a class is built here, with its options."""
    call = definition.call
    if definition.is_class:
        built: Callable[[object], object] = call(options)
        return built
    if definition.takes_options:
        return lambda rollouts: call(rollouts, options)
    return call


class Caller:
    """A component with a synchronous reward, to be called in this process and thread.

    A class is built at the first call; if that fails, every row is an "error". `catch` are the
    exceptions that become a score. `on_call` is called when a call begins, so that its deadline can be
    watched; the tries of one call share it.
    """

    def __init__(
        self,
        component: Component,
        *,
        catch: tuple[type[BaseException], ...] = CATCH_IN_PROCESS,
        on_call: Callable[[], None] | None = None,
    ) -> None:
        self._definition = component.definition
        self._options = component.options
        self._timeout_s = component.timeout_s
        self._catch = catch
        self._on_call = on_call
        self._bound: Callable[[object], object] | None = None
        self._broken: Score | None = None

    def build(self) -> Score | None:
        """Build the reward unless it is built; the score of every row where that fails, else None."""
        if self._bound is None and self._broken is None:
            try:
                self._bound = bind(self._definition, self._options)
            except self._catch as error:
                self._broken = failed_score(
                    error, "the reward could not be built: ", definition=self._definition
                )
        return self._broken

    def answer(self, rollouts: Sequence[Rollout]) -> list[TimedScore]:
        """One score per rollout; form "rollout" takes exactly one. A batch that raises is split."""
        if self._bound is None and self.build() is not None:
            assert self._broken is not None
            return [TimedScore(self._broken)] * len(rollouts)
        if self._definition.form == "rollout":
            return [self.one(rollout) for rollout in rollouts]
        return self._many(rollouts)

    def one(self, rollout: Rollout) -> TimedScore:
        """The score of one rollout, from a reward of form "rollout" that is built."""
        assert self._bound is not None
        if self._on_call is not None:
            self._on_call()
        started = time.perf_counter()
        try:
            score = to_score(self._bound(rollout))
        except self._catch as error:
            return self._after_error(error, rollout, started)
        return TimedScore(score, time.perf_counter() - started)

    def _after_error(self, error: BaseException, rollout: Rollout, started: float) -> TimedScore:
        attempts = 1
        while self._may_retry(error, attempts, started):
            attempts += 1
            try:
                assert self._bound is not None
                score = to_score(self._bound(rollout))
            except self._catch as another:
                error = another
            else:
                return TimedScore(score, time.perf_counter() - started, attempts)
        score = failed_score(error, definition=self._definition)
        return TimedScore(score, time.perf_counter() - started, attempts)

    def _many(self, rollouts: Sequence[Rollout], tries_before: int = 0) -> list[TimedScore]:
        assert self._bound is not None
        if self._on_call is not None:
            self._on_call()
        started = time.perf_counter()
        attempts = 0
        while True:
            attempts += 1
            try:
                answer = self._bound(rollouts)
                scores = checked_answers(answer, len(rollouts), self._definition)
                break
            except self._catch as error:
                if self._may_retry(error, attempts, started):
                    continue
                if self._definition.form == "batch" and len(rollouts) > 1:
                    # one bad row must not cost the others their scores
                    middle = len(rollouts) // 2
                    tries = tries_before + attempts
                    return self._many(rollouts[:middle], tries) + self._many(rollouts[middle:], tries)
                scores = [failed_score(error, definition=self._definition)] * len(rollouts)
                break
        share_s = (time.perf_counter() - started) / len(rollouts)
        return [TimedScore(score, share_s, tries_before + attempts) for score in scores]

    def _may_retry(self, error: BaseException, attempts: int, started: float) -> bool:
        """Whether to try again, after waiting out the pause. Never past the deadline of the call."""
        definition = self._definition
        if not isinstance(error, definition.retry_on) or attempts > definition.max_retries:
            return False
        pause_s = backoff_s(attempts)
        if time.perf_counter() - started + pause_s >= self._timeout_s:
            return False
        time.sleep(pause_s)
        return True


def backoff_s(attempts: int) -> float:
    """The pause after `attempts` failed tries: 0.25 s, 0.5 s, 1 s, ..."""
    return float(BACKOFF_S * 2 ** (attempts - 1))


def checked_answers(answer: object, expected: int, definition: RewardDefinition) -> list[Score]:
    """One score per row from what a batch or group reward returned.

    Something other than a sequence, or a wrong length, is an "error" for every row of the call; a value
    that cannot be a score is one for its row only.
    """
    if isinstance(answer, (str, bytes, Mapping, Set)) or not hasattr(answer, "__len__"):
        reason = f"returned {_shown(answer)}: expected one answer for each of the {expected} rollouts"
        return [_breach(reason, definition)] * expected
    answers: list[object] = list(answer)  # type: ignore[call-overload]
    if len(answers) != expected:
        reason = f"returned {len(answers)} answers for {expected} rollouts: expected one for each, in order"
        return [_breach(reason, definition)] * expected
    return [_checked(item, definition) for item in answers]


def breaks_contract(score: Score) -> bool:
    """Whether the reward returned what no reward may return: a wrong type or number of answers."""
    return bool(score.details.get("breach"))


def _checked(answer: object, definition: RewardDefinition) -> Score:
    try:
        return to_score(answer)
    except Exception as error:  # noqa: BLE001 - the border: what a reward returns may raise when it is read
        return failed_score(error, definition=definition)


def failed_score(error: BaseException, prefix: str = "", *, definition: RewardDefinition) -> Score:
    """The "error" score for an exception: its type and text, the plugin's own line, the traceback.

    The line is the deepest one in the reward's own file or package, whatever library raised there.
    """
    text = error_text(error)
    if isinstance(error, NotAScoreError):
        return _breach(f"TypeError: {text}", definition)
    frames = traceback.extract_tb(error.__traceback__)
    reason = f"{prefix}{type(error).__name__}: {text}"[:REASON_CHARS]
    shown = "".join(traceback.format_list(frames[-8:]))[-TRACEBACK_CHARS:]
    return _failed_at(reason, _own_line(frames, definition), traceback=shown)


def error_text(error: BaseException) -> str:
    """The error's own text, also where asking for it raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception whose own __str__ raises
        return "(its text cannot be shown)"


def source_of(definition: RewardDefinition) -> str:
    """Where the reward is defined, as "file:line"; "" for one without Python source."""
    call: object = inspect.unwrap(getattr(definition.call, "function", definition.call))
    if inspect.isclass(call):
        call = call.__call__
    code = getattr(call, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def _own_line(frames: traceback.StackSummary, definition: RewardDefinition) -> str:
    """The deepest frame in the reward's file, or in its package; else the line of its definition."""
    source = source_of(definition)
    file = source.rpartition(":")[0]
    folder = os.path.dirname(file) + os.sep
    in_package = os.path.exists(folder + "__init__.py")
    own = [f for f in frames if f.filename == file or (in_package and f.filename.startswith(folder))]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else source


def _breach(reason: str, definition: RewardDefinition) -> Score:
    return _failed_at(reason, source_of(definition), breach=True)


def _failed_at(reason: str, where: str, **details: object) -> Score:
    name = os.path.basename(where)
    reason = f"{reason} ({name})" if name else reason
    return Score.failed(ScoreOutcome.ERROR, reason, where=where, **details)


def _shown(answer: object) -> str:
    return f"{type(answer).__name__} ({answer!r:.80})"
