"""The tests that grade a program, the grading options, and the result of one test.

Which tests keep the expected values out of the program's process, and which trust the program:

    StdinTest     separate   the program gets stdin; its stdout is compared outside
    CallTest      separate   the program gets arguments; its result comes back as data
    ObjectTest    separate   the same for a sequence of calls on one object
    AssertTest    separate if the asserts only call functions with data, else trusting
    UnitTestFile  likewise
    ProgramTest   trusting
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from verl_lite.sandbox import Limits

Comparison = Literal["tokens", "lines", "floats", "exact", "checker"]
ValueRules = Literal["json", "python"]
TestStatus = Literal["passed", "failed", "bad_reference", "error", "not_run"]
Checker: TypeAlias = Callable[[str, str, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class StdinTest:
    """Run the program on `stdin` and compare what it printed with `expected`.

    compare   "tokens":  equal tokens in the same lines, numbers within `tolerance` (relative or
                         absolute; of an integer absolute, 0 for the same text). A plain list of tokens
                         may stand on one line or on many; a drawing must be indented as expected
              "lines":   equal line by line, ignoring trailing spaces and trailing empty lines
              "floats":  equal tokens wherever they stand, numbers within `tolerance`
              "exact":   the same text
              "checker": `checker(stdin, output, expected)` decides. A str is Python source that
                         defines `check`; it runs in its own sandboxed process after the program
                         has ended. A callable runs in this process and must not trust the output.
    """

    stdin: str = ""
    expected: str = ""
    compare: Comparison = "tokens"
    checker: str | Checker | None = None
    tolerance: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTest:
    """Call `function` with `args` and `kwargs` and compare the result outside the sandbox.

    `function` is a name, or "Solution.name" for a method of an object created without arguments.
    rules      "json":   lists and tuples are equal, mapping keys are compared in their JSON form, an
                         expected float allows `tolerance`; the meaning of data sets in JSON
               "python": `==` of plain data, with `1 == 1.0 == True` as in Python
    also       further correct values
    result_in  the index of the argument that holds the result, for functions that work in place
    """

    function: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    expected: Any = None
    rules: ValueRules = "json"
    also: tuple[Any, ...] = ()
    tolerance: float = 1e-6
    result_in: int | None = None
    source: str = ""  # the assert line this was read from


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectTest:
    """Create `class_name(*args)` and call its methods in order; every result is compared outside.

    `calls` holds (method, args) pairs, `expected` one value per call.
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

    `setup` runs before them in the tests' process. `names` are the program's functions that `source`
    calls; empty means every name that `source` reads but does not define.
    """

    source: str
    setup: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTestFile:
    """A test file (plain `test_*` functions or unittest) that imports the program as `module`.

    `setup` runs before it, in the same namespace.
    """

    source: str
    module: str = "solution"
    setup: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramTest:
    """Test code in the program's own language, put behind it: the whole must end with exit code 0.

    It always trusts the program, which can end early. `prompt` is what the program may continue.
    """

    source: str
    prompt: str = ""


CodeTest: TypeAlias = StdinTest | CallTest | ObjectTest | AssertTest | UnitTestFile | ProgramTest


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeOptions:
    """How programs are found, run and graded.

    language               of the program; languages other than "python" need stdin tests
    prelude                Python code run before the program in every test that calls into it
    continues              text that the response continues (HumanEval's prompt), used if the program
                           does not define what the tests call
    limits                 per process
    compare, tolerance     for stdin tests, instead of their own; a checker stays
    stop_on_first_failure  skip the tests after the first failure ("not_run")
    max_timeouts           skip the tests after that many time-outs, so that a hanging program costs at
                           most this many wall limits
    trusting_tests         tests that must run inside the program's process, where a hostile program
                           can make them pass: "allow" (and report) or "refuse" (bad_reference)
    """

    language: str = "python"
    prelude: str = ""
    continues: str = ""
    limits: Limits = field(default_factory=lambda: Limits(processes=64))  # 32 threads are honest
    compare: Literal["tokens", "lines", "floats", "exact"] | None = None
    tolerance: float | None = None
    stop_on_first_failure: bool = True
    max_timeouts: int = 3
    trusting_tests: Literal["allow", "refuse"] = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """The result of one test. `trusts_program` marks a pass that a hostile program could have forged."""

    status: TestStatus
    kind: str
    reason: str = ""
    trusts_program: bool = False
    timed_out: bool = False

    __test__ = False  # pytest: no test class

    @property
    def passed(self) -> bool:
        return self.status == "passed"

    def as_dict(self, index: int) -> dict[str, object]:
        """The row of `Verdict.details["tests"]`."""
        row: dict[str, object] = {"index": index, "kind": self.kind, "status": self.status}
        if self.reason:
            row["reason"] = self.reason
        if self.trusts_program:
            row["trusts_program"] = True
        return row
