"""Process rewards: character and token positions onto tokens."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from verl_lite.plugins import StepScore
from verl_lite.plugins.composite import even_spans, spans_from_pieces, steps_to_tokens, token_pieces

SPANS = [(0, 2), (2, 2), (2, 5), (5, 6), (6, 6)]  # the second adds no text, the last is an end token


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], [0, 0, 0, 0, 0]),
        ([StepScore(0, 2, 1.0)], [1, 0, 0, 0, 0]),
        ([StepScore(0, 3, 1.0)], [0, 0, 1, 0, 0]),  # ends inside the third token
        ([StepScore(0, 6, 1.0)], [0, 0, 0, 1, 0]),  # never on the end token
        ([StepScore(2, 4, 0.5), StepScore(4, 5, 0.25)], [0, 0, 0.75, 0, 0]),  # one token: added
        ([StepScore(0, 1, -1.0, "token")], [-1, 0, 0, 0, 0]),
        ([StepScore(0, 5, 2.0, "token")], [0, 0, 0, 0, 2]),
        ([StepScore(0, 2, 1.0), StepScore(2, 4, 3.0, "token")], [1, 0, 0, 3, 0]),
    ],
)
def test_values_land_on_the_token_that_ends_the_step(steps: list[StepScore], expected: list[float]) -> None:
    assert steps_to_tokens(steps, SPANS) == expected


@pytest.mark.parametrize("step", [StepScore(0, 7, 1.0), StepScore(0, 6, 1.0, "token")])
def test_a_step_outside_the_completion_is_refused(step: StepScore) -> None:
    with pytest.raises(ValueError, match="outside the completion's"):
        steps_to_tokens([step], SPANS)


@pytest.mark.parametrize(
    ("start", "end", "value", "unit"),
    [
        (0, 0, 1.0, "char"),
        (3, 2, 1.0, "char"),
        (-1, 2, 1.0, "char"),
        (0, 1, float("nan"), "char"),
        (0, 1, 1.0, "byte"),
    ],
)
def test_steps_that_mean_nothing_are_refused(start: int, end: int, value: float, unit: str) -> None:
    with pytest.raises(ValueError, match="StepScore"):
        StepScore(start, end, value, unit)  # type: ignore[arg-type]


def test_pieces_of_another_text_are_refused() -> None:
    with pytest.raises(ValueError, match="at character 1: 'xc' against 'bc'"):
        spans_from_pieces(["a", "xc"], "abc")


@given(st.text(max_size=40), st.integers(1, 4))
def test_pieces_of_a_byte_tokenizer_join_to_the_text(text: str, width: int) -> None:
    data = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
    tokens = [data[i : i + width] for i in range(0, len(data), width)]

    def decode(ids: object) -> str:
        return b"".join(tokens[i] for i in ids).decode("utf-8", "replace")  # type: ignore[attr-defined]

    whole = data.decode()
    pieces = token_pieces(range(len(tokens)), decode)
    assert "".join(pieces) == whole
    spans = spans_from_pieces(pieces, whole)
    assert len(spans) == len(tokens)
    assert all(start <= end for start, end in spans)


@given(st.integers(1, 50), st.integers(0, 300))
def test_even_spans_cover_the_text_once(num_tokens: int, num_chars: int) -> None:
    spans = even_spans(num_tokens, num_chars)
    assert spans[0][0] == 0
    assert spans[-1][1] == num_chars
    assert all(left[1] == right[0] for left, right in pairwise(spans))
