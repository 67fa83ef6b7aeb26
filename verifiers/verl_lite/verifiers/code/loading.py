"""Loads the tests of a data-set row. Its columns tell the format (row_formats.py)."""

from collections.abc import Callable, Mapping

from verl_lite.verifiers.code.asserts import NotReadable
from verl_lite.verifiers.code.row_formats import FORMATS, Format
from verl_lite.verifiers.code.row_values import BadTests, LoadedTests, read_value

_MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)


def load_tests(columns: Mapping[str, object], *, reference: str | None = None) -> LoadedTests:
    """The tests in a row's columns, else in its `reference`; the first format that fits decides.

    Raises BadTests for a row of unknown format, a malformed one, and one without tests.

    >>> load_tests({"test_list": ["assert add(1, 2) == 3"]}).tests[0].function
    'add'
    """
    found = _format_of(columns)
    if found is not None:
        return _read(lambda: found.read(columns), " + ".join(found.columns))
    if reference is not None and reference.strip():
        return _read(lambda: read_value(reference, "verl", columns=columns), "reference")
    raise BadTests(f"no tests in the row: {_nearest(columns)}; got columns {sorted(columns)}")


def has_tests(columns: Mapping[str, object]) -> bool:
    """Whether the row has the columns of a known format, usable or not.

    >>> has_tests({"test_list": []}), has_tests({"reference": "4"})
    (True, False)
    """
    return _format_of(columns) is not None


def _format_of(columns: Mapping[str, object]) -> Format | None:
    for known in FORMATS:
        if all(_present(columns, name) for name in known.columns) and known.fits(columns):
            return known
    return None


def _nearest(columns: Mapping[str, object]) -> str:
    """The format with the most of its columns in the row, or all of them if there is none."""
    alike = {name.lower().rstrip("s") for name in columns}

    def share(known: Format) -> float:
        near = [1.0 if name in columns else 0.9 * (name.rstrip("s") in alike) for name in known.columns]
        return sum(near) / len(near)

    best = max(FORMATS, key=share)
    if share(best) == 0:
        known = "; ".join(dict.fromkeys(" + ".join(known.columns) for known in FORMATS))
        return f"expected one of [{known}]"
    missing = [name for name in best.columns if not _present(columns, name)]
    lacks = f", and lacks {' and '.join(missing)}" if missing else ", whose values are not tests"
    return f"the nearest format is {best.name} ({' + '.join(best.columns)}){lacks}"


def _present(columns: Mapping[str, object], name: str) -> bool:
    value = columns.get(name)
    return value is not None and not (isinstance(value, (str, dict)) and not value)


def _read(read: Callable[[], LoadedTests], wanted: str) -> LoadedTests:
    """What `read` gives; any malformed row is BadTests, since the readers index freely."""
    try:
        loaded = read()
    except BadTests:
        raise
    except NotReadable as error:
        raise BadTests(str(error)) from None
    except _MALFORMED as error:
        raise BadTests(f"malformed {wanted}: {type(error).__name__}: {error}") from None
    if not loaded.tests:
        raise BadTests(f"the row ({loaded.shape}) has no tests: an empty list would pass any program")
    return loaded
