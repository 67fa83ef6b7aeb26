"""Loads the tests of a data-set row. The columns tell which shape it has:

| shape         | recognised by                                             | becomes                    |
|---------------|-----------------------------------------------------------|----------------------------|
| verl-lite     | `tests`: objects with a `kind`, or assert lines           | as written                 |
| HumanEval     | `test`, `entry_point` (and `prompt`)                      | calls, or one assert test  |
| MBPP          | `test_list` (and `test_setup_code`, `test_imports`)       | one test per assert        |
| APPS          | `input_output` (JSON: inputs, outputs, fn_name)           | stdin or call tests        |
| LiveCodeBench | `public_test_cases`, `private_test_cases`, `metadata`     | stdin or call tests        |
| verl          | `reward_model.ground_truth`, `ground_truth`, `reference`  | stdin or call tests        |
| unit tests    | `unit_tests`: a test file                                 | one unit-test file         |
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_lite.verifiers.code.asserts import NotReadable
from verl_lite.verifiers.code.row_formats import (
    BadTests,
    LoadedTests,
    read_apps,
    read_ground_truth,
    read_humaneval,
    read_livecodebench,
    read_mbpp,
    read_own,
    read_unit_tests,
)

Reader = Callable[[Mapping[str, Any]], LoadedTests]


def load_tests(columns: Mapping[str, Any], *, reference: str | None = None) -> LoadedTests:
    """The tests in a row's columns, else in its `reference`; the first shape that fits decides.

    Raises BadTests for a row of unknown shape, a malformed one, and one without tests.

    >>> load_tests({"test_list": ["assert add(1, 2) == 3"]}).tests[0].function
    'add'
    """
    for wanted, read in _SHAPES:
        if all(_present(columns, name) for name in wanted):
            return _read(read, columns, wanted)
    if reference is not None and reference.strip():
        return _read(lambda _: read_ground_truth(reference), columns, ("reference",))
    known = "; ".join(" + ".join(wanted) for wanted, _ in _SHAPES)
    raise BadTests(f"no tests in the row: expected one of [{known}], got columns {sorted(columns)}")


def has_tests(columns: Mapping[str, Any]) -> bool:
    """Whether the row has the columns of a known shape, usable or not.

    >>> has_tests({"test_list": []}), has_tests({"reference": "4"})
    (True, False)
    """
    return any(all(_present(columns, name) for name in wanted) for wanted, _ in _SHAPES)


def _present(columns: Mapping[str, Any], name: str) -> bool:
    value = columns.get(name)
    return value is not None and not (isinstance(value, (str, dict)) and not value)


def _read(read: Reader, columns: Mapping[str, Any], wanted: Sequence[str]) -> LoadedTests:
    """`read(columns)`; any malformed row is BadTests, since the readers index freely."""
    try:
        loaded = read(columns)
    except BadTests:
        raise
    except NotReadable as error:
        raise BadTests(str(error)) from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadTests(f"malformed {' + '.join(wanted)}: {type(error).__name__}: {error}") from None
    if not loaded.tests:
        raise BadTests(f"the row ({loaded.shape}) has no tests: an empty list would pass any program")
    return loaded


_SHAPES: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (("tests",), read_own),
    (("test", "entry_point"), read_humaneval),
    (("test_list",), read_mbpp),
    (("input_output",), read_apps),
    (("public_test_cases",), read_livecodebench),
    (("unit_tests",), read_unit_tests),
    (("reward_model",), lambda columns: read_ground_truth(columns["reward_model"]["ground_truth"])),
    (("ground_truth",), lambda columns: read_ground_truth(columns["ground_truth"])),
)
