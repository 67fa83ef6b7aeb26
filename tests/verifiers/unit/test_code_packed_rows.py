"""LiveCodeBench packs its hidden cases as a pickled string: it is read without unpickling anything."""

import base64
import json
import pickle
import zlib
from typing import Any

import pytest

from verl_lite.verifiers.code import BadTests, load_tests

CASES = [{"input": "3\n", "output": "9 \u00e9\n", "testtype": "stdin"}]


def row(content: Any, protocol: int) -> dict[str, Any]:
    packed = base64.b64encode(zlib.compress(pickle.dumps(content, protocol))).decode()
    return {"public_test_cases": "[]", "private_test_cases": packed, "metadata": "{}"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("repeats", [1, 20_000])
def test_every_protocol_s_string_is_read(protocol: int, repeats: int) -> None:
    loaded = load_tests(row(json.dumps(CASES * repeats, ensure_ascii=False), protocol))
    assert len(loaded.tests) == repeats
    assert loaded.tests == load_tests({**row("", 4), "private_test_cases": json.dumps(CASES * repeats)}).tests


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


@pytest.mark.parametrize("content", [Hostile(), CASES, ["[]", "[]"], b"[]", 1])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_anything_else_is_refused_and_never_run(
    content: Any, protocol: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadTests, match="private_test_cases: not JSON and not the packed form"):
        load_tests(row(content, protocol))
    assert capsys.readouterr().out == ""
