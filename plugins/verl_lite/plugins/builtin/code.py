"""The reward `code`: runs the program in the response against the tests in the rollout's columns."""

import functools
import hashlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Literal

from pydantic import Field

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.sandbox import SANDBOX_VERSION, Limits, Sandbox
from verl_lite.verifiers import Outcome, Verdict
from verl_lite.verifiers.code import (
    BadTests,
    CodeOptions,
    LoadedTests,
    Submission,
    extract_program,
    load_tests,
    verify_programs,
)


class CodeRewardOptions(ConfigModel):
    """Options of the reward `code`."""

    language: str = Field("python", description="of the programs; all but python take stdin tests only")
    credit: Literal["all", "fraction"] = Field(
        "all", description="all: 1.0 when every test passes, else 0.0; fraction: passed / total"
    )
    stop_on_first_failure: bool | None = Field(
        None, description="skip the tests after the first failure; the default if credit is 'all'"
    )
    compare: Literal["tokens", "lines", "floats", "exact"] | None = Field(
        None, description="how printed output is compared, instead of what the tests say"
    )
    tolerance: float | None = Field(
        None, ge=0, description="of printed numbers, instead of the tests' own; 0 compares them as text"
    )
    max_timeouts: int = Field(3, gt=0, description="skip the tests after this many timeouts")
    trusting_tests: Literal["refuse", "allow"] = Field(
        "refuse", description="what to do with tests that share the program's process, which can forge them"
    )
    on_bad_reference: Literal["abstain", "error"] = Field(
        "abstain", description="the outcome for a row whose tests cannot be used"
    )
    prelude: str = Field("", description="Python run before every program that is called into")
    timeout_s: float = Field(5.0, gt=0, description="wall-clock seconds per process")
    memory_mb: int = Field(512, gt=0)
    """Memory of a run in MiB, all its processes together."""
    processes: int = Field(64, gt=0, description="of a run, threads included")
    output_kb: int = Field(1024, gt=0)
    """Output of a run in KiB; beyond, it is cut and the run fails."""
    workers: int | None = Field(None, gt=0, description="sandbox workers; by default one per core")
    backend: str = Field(
        "auto",
        description="auto, native, bubblewrap, landlock (no namespaces: isolates less), or a service's URL",
    )
    read_only_paths: tuple[str, ...] = Field((), description="folders of packages that programs may import")
    libraries: tuple[str, ...] = Field(
        (), description="packages of this environment to import before any program, or sets: arrays, science"
    )
    unsafe: bool = Field(
        False, description="run without isolation where there is none: trusted programs only"
    )
    cache_entries: int = Field(10_000, ge=0, description="cached verdicts; 0 turns the cache off")

    def for_tests(self, loaded: LoadedTests) -> CodeOptions:
        stop = self.stop_on_first_failure
        return CodeOptions(
            language=loaded.language or self.language,
            prelude=loaded.prelude + self.prelude,
            continues=loaded.continues,
            limits=Limits(
                wall_s=self.timeout_s,
                memory_mb=self.memory_mb,
                processes=self.processes,
                output_kb=self.output_kb,
            ),
            compare=self.compare,
            tolerance=self.tolerance,
            stop_on_first_failure=self.credit == "all" if stop is None else stop,
            max_timeouts=self.max_timeouts,
            trusting_tests=self.trusting_tests,
        )


@reward("code", options=CodeRewardOptions, form="batch", isolate=False, timeout_s=1800.0, max_batch=1024)
class CodeReward:
    """Runs the program in the completion against the row's tests, isolated, and scores what passed.

    All programs and tests of a batch share one sandbox, whose limits bound every run, so the reward
    itself needs no worker process. Columns: see docs/code.md. A program that is wrong, crashes or
    times out scores 0.0, and so does a response without a program; a row with unusable tests abstains;
    a sandbox fault is an error, never a 0.
    """

    def __init__(self, options: CodeRewardOptions) -> None:
        self._options = options
        self._cache: OrderedDict[str, Verdict] = OrderedDict()
        self._lock = threading.Lock()
        self._sandbox: Sandbox | None = None
        self._end: Callable[[], object] | None = None

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Score]:
        scores: dict[int, Score] = {}
        waiting: dict[str, Submission] = {}
        keys: dict[int, str] = {}
        load = _remembering_last(load_tests)
        for index, rollout in enumerate(rollouts):
            try:
                loaded, tests_key = load(rollout)
            except BadTests as error:
                scores[index] = self._unusable(str(error))
                continue
            options = self._options.for_tests(loaded)
            submission = Submission(response=rollout.completion, tests=loaded.tests, options=options)
            keys[index] = self._key(submission, tests_key)
            waiting.setdefault(keys[index], submission)
        verdicts = self._verdicts(waiting)
        scores.update({index: self._score(verdicts[key]) for index, key in keys.items()})
        return [scores[index] for index in range(len(rollouts))]

    def close(self) -> None:
        """Stop the sandbox; a later call starts a new one."""
        with self._lock:
            self._sandbox = None
            end, self._end = self._end, None
        if end is not None:
            end()

    def _verdicts(self, waiting: Mapping[str, Submission]) -> dict[str, Verdict]:
        with self._lock:
            known = {key: self._cache[key] for key in waiting if key in self._cache}
        missing = [key for key in waiting if key not in known]
        if not missing:
            return known
        fresh = verify_programs([waiting[key] for key in missing], sandbox=self._open_sandbox())
        for key, verdict in zip(missing, fresh, strict=True):
            known[key] = verdict
            self._remember(key, verdict)
        return known

    def _remember(self, key: str, verdict: Verdict) -> None:
        """Cache reproducible verdicts: neither sandbox faults nor timeouts."""
        if verdict.outcome is Outcome.ERROR or verdict.details.get("timed_out"):
            return
        with self._lock:
            self._cache[key] = verdict
            while len(self._cache) > self._options.cache_entries:
                self._cache.popitem(last=False)

    def _open_sandbox(self) -> Sandbox:
        with self._lock:
            if self._sandbox is None:
                options = self._options
                sandbox = Sandbox(
                    workers=options.workers,
                    backend=options.backend,
                    unsafe=options.unsafe,
                    read_only_paths=options.read_only_paths,
                    libraries=options.libraries,
                )
                self._sandbox = sandbox
                self._end = weakref.finalize(self, sandbox.close)
            return self._sandbox

    @staticmethod
    def _key(submission: Submission, tests_key: str) -> str:
        """All that decides a verdict: program, tests, options, and the versions of grader and sandbox."""
        program = extract_program(submission.response, submission.options.language)
        return _digest((program, tests_key, submission.options, _version(), SANDBOX_VERSION))

    def _unusable(self, reason: str, **details: object) -> Score:
        kind = ScoreOutcome.ABSTAIN if self._options.on_bad_reference == "abstain" else ScoreOutcome.ERROR
        return Score.failed(kind, reason, verdict=Outcome.BAD_REFERENCE.value, **details)

    def _score(self, verdict: Verdict) -> Score:
        if verdict.outcome is Outcome.BAD_REFERENCE:
            return self._unusable(verdict.reason, **verdict.details)
        details = {"verdict": verdict.outcome.value, **verdict.details}
        if verdict.outcome in (Outcome.ERROR, Outcome.TIMEOUT):
            return Score(None, ScoreOutcome.ERROR, verdict.reason, details)
        value = verdict.credit if self._options.credit == "fraction" else float(verdict.is_correct)
        return Score(value, ScoreOutcome.OK, verdict.reason, details)


@functools.cache
def _version() -> str:
    return metadata.version("verl-lite")


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()


def _remembering_last(load: Callable[..., LoadedTests]) -> Callable[[Rollout], tuple[LoadedTests, str]]:
    """`load` for rollouts, with a key of the tests; consecutive samples of one row load them once."""
    last: list[tuple[Rollout, LoadedTests, str]] = []

    def remembered(rollout: Rollout) -> tuple[LoadedTests, str]:
        if last and last[0][0].reference == rollout.reference and _same(last[0][0].columns, rollout.columns):
            return last[0][1:]
        loaded: LoadedTests = load(rollout.columns, reference=rollout.reference)
        last[:] = [(rollout, loaded, _digest(loaded.tests))]
        return last[0][1:]

    return remembered


def _same(left: Mapping[str, object], right: Mapping[str, object]) -> bool:
    """Whether columns are equal; arrays, whose `==` is not a bool, must be the same object."""
    if left.keys() != right.keys():
        return False
    plain = (str, int, float, bool, list, dict)
    return all(
        left[name] is right[name]
        or (type(left[name]) is type(right[name]) and type(left[name]) in plain and left[name] == right[name])
        for name in left
    )
