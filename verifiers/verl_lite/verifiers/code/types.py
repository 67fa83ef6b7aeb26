"""The kinds of test a program is graded by, the options of grading, and the result of one test.

Which kinds keep the expected values away from the program, and which trust it:

    StdinTest     separate   the program gets stdin; its stdout is compared outside
    CallTest      separate   the program gets arguments; its result comes back as data
    ObjectTest    separate   the same for a sequence of calls on one object
    AssertTest    separate where the asserts only call functions with data, else trusting
    UnitTestFile  likewise
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from verl_lite.sandbox import Limits

__all__ = [
    "AssertTest",
    "CallTest",
    "CodeOptions",
    "CodeTest",
    "Comparison",
    "ObjectTest",
    "StdinTest",
    "TestResult",
    "TestStatus",
    "UnitTestFile",
]

Comparison = Literal["tokens", "lines", "floats", "exact", "checker"]
ValueRules = Literal["json", "python"]
TestStatus = Literal["passed", "failed", "bad_reference", "error", "not_run"]
Checker: TypeAlias = Callable[[str, str, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class StdinTest:
    """Run the program on `stdin` and compare what it printed with `expected`.

    compare   "tokens":  equal after splitting at white space (the contest judge's rule)
              "lines":   equal line by line, ignoring space at line ends and empty lines at the end
              "floats":  as tokens, where two numbers may differ by `tolerance`, relative or absolute
              "exact":   byte for byte as text
              "checker": `checker(stdin, output, expected)` decides. A str is Python source that
                         defines `check`, run in a sandboxed process of its own after the program
                         has ended; a callable runs here and must not trust the output.
    """

    stdin: str = ""
    expected: str = ""
    compare: Comparison = "tokens"
    checker: str | Checker | None = None
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTest:
    """Call `function` with `args` and `kwargs` and compare the result outside the sandbox.

    `function` is a name, or "Solution.name" for a method of an object built without arguments.
    rules      "json":   lists and tuples are the same, mapping keys are compared as JSON writes
                         them, a float expected allows `tolerance`; what data sets in JSON mean
               "python": `==` of plain data, with `1 == 1.0 == True` as Python has it
    also       further values that count as right
    result_in  the index of the argument that holds the result of a function working in place
    """

    function: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    expected: Any = None
    rules: ValueRules = "json"
    also: tuple[Any, ...] = ()
    tolerance: float = 1e-6
    result_in: int | None = None
    setup: str = ""
    source: str = ""  # the assert line this was read from


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectTest:
    """Build `class_name(*args)` and call its methods in order; every result is compared outside.

    `calls` holds (method, args) pairs and `expected` one value a call.
    """

    class_name: str
    args: tuple[Any, ...] = ()
    calls: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    expected: tuple[Any, ...] = ()
    rules: ValueRules = "json"
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertTest:
    """Python statements, usually one `assert f(x) == y`, that call functions of the program.

    `setup` runs before them in the tests' own process. `names` are the program's functions that
    `source` calls; empty means: every name that `source` reads and nothing defines.
    """

    source: str
    setup: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTestFile:
    """A test file (plain `test_*` functions or unittest) that imports the program as `module`."""

    source: str
    module: str = "solution"


CodeTest: TypeAlias = StdinTest | CallTest | ObjectTest | AssertTest | UnitTestFile


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeOptions:
    """How programs are found, run and judged.

    language               of the program; other than "python" only with stdin tests
    prelude                Python run before the program in every test that calls into it
    continues              text the response continues (HumanEval's prompt), used when the program
                           found does not itself define what the tests call
    limits                 of each process
    stop_on_first_failure  leave the tests after the first failure out ("not_run")
    max_timeouts           leave the tests after that many time-outs out: a hanging program costs
                           this many times its wall limit at most
    trusting_tests         what to do with tests that have to run inside the program's process,
                           where a hostile program can make them pass: "allow" (and report) or
                           "refuse" (bad_reference)
    """

    language: str = "python"
    prelude: str = ""
    continues: str = ""
    limits: Limits = field(default_factory=Limits)
    stop_on_first_failure: bool = True
    max_timeouts: int = 3
    trusting_tests: Literal["allow", "refuse"] = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """What one test said. `trusts_program` marks a pass that a hostile program could have forged."""

    status: TestStatus
    kind: str
    reason: str = ""
    trusts_program: bool = False
    timed_out: bool = False

    __test__ = False  # pytest: no test class

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def as_dict(self, index: int) -> dict[str, Any]:
        """The row of `Verdict.details["tests"]`."""
        row: dict[str, Any] = {"index": index, "kind": self.kind, "status": self.status}
        if self.reason:
            row["reason"] = self.reason
        if self.trusts_program:
            row["trusts_program"] = True
        return row
