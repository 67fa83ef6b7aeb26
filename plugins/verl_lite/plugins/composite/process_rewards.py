"""Process rewards: from positions in the completion to one value per token.

A step's value lands on its last token. For positions in characters, the characters of each token must
be known:

- with a tokenizer's `decode`, exactly: token i covers what decoding i + 1 tokens adds to decoding i;
- without one, evenly: token i of n covers the i-th n-th of the text. This approximation is for records
  scored without their tokenizer; training always has one.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from verl_lite.plugins.rollout import Turn
from verl_lite.plugins.score import StepScore

Decode = Callable[[Sequence[int]], str]
TokenSpans = Sequence[tuple[int, int]]  # [start, end) of each token, in characters of the completion


def token_pieces(token_ids: Sequence[int], decode: Decode) -> list[str]:
    """The text each token adds; joined they are `decode(token_ids)`.

    A character spread over several tokens belongs to the last of them.
    Decodes every prefix: the cost is quadratic in the length, so use it for process rewards only.

    >>> token_pieces([104, 195, 169], lambda ids: bytes(ids).decode("utf-8", "replace"))
    ['h', '', 'é']
    """
    pieces, done = [], ""
    for count in range(1, len(token_ids) + 1):
        text = decode(token_ids[:count])
        is_open = text.endswith("\ufffd") and count < len(token_ids)  # bytes of an incomplete character
        pieces.append("" if is_open else text[len(done) :])
        done = done if is_open else text
    return pieces


def spans_from_pieces(pieces: Iterable[str], text: str) -> list[tuple[int, int]]:
    """The [start, end) characters of each piece; pieces beyond the text (an end token) are empty.

    Raises ValueError if the joined pieces do not start with `text`.

    >>> spans_from_pieces(["ab", "", "c", "<eos>"], "abc")
    [(0, 2), (2, 2), (2, 3), (3, 3)]
    """
    pieces = list(pieces)
    joined = "".join(pieces)
    if not joined.startswith(text):
        at = next((i for i, (a, b) in enumerate(zip(joined, text, strict=False)) if a != b), len(joined))
        raise ValueError(
            f"the tokens' text differs from the completion at character {at}: "
            f"{joined[at : at + 20]!r} against {text[at : at + 20]!r}"
        )
    spans, start = [], 0
    for piece in pieces:
        end = min(start + len(piece), len(text))
        spans.append((start, end))
        start = end
    return spans


def even_spans(num_tokens: int, num_chars: int) -> list[tuple[int, int]]:
    """Token i of n covers the characters [i * L // n, (i + 1) * L // n).

    >>> even_spans(3, 10)
    [(0, 3), (3, 6), (6, 10)]
    """
    return [(i * num_chars // num_tokens, (i + 1) * num_chars // num_tokens) for i in range(num_tokens)]


def steps_as_tokens(steps: Iterable[StepScore], turns: Sequence[Turn]) -> list[StepScore]:
    """The steps of a trajectory with those of turns as tokens: the last token of the span's last turn.

    Without token ids they stay where a turn is: nothing is placed. Raises ValueError for a turn that does
    not exist or that the model did not write.

    >>> turns = (Turn(role="assistant", content="a", end=3), Turn(role="tool", content="b"))
    >>> steps_as_tokens([StepScore(0, 1, 0.5, "turn")], turns)
    [StepScore(start=0, end=3, value=0.5, unit='token')]
    """
    placed = []
    for step in steps:
        if step.unit != "turn":
            placed.append(step)
            continue
        turn = turns[step.end - 1] if step.end <= len(turns) else None
        if turn is None or turn.role != "assistant":
            what = "which does not exist" if turn is None else f"which is the {turn.role}'s"
            raise ValueError(f"the step [{step.start}, {step.end}) ends with turn {step.end - 1}, {what}")
        if turn.end > turn.start:
            placed.append(StepScore(turn.start, turn.end, step.value, "token"))
    return placed


def last_reply_spans(turns: Sequence[Turn], num_tokens: int, spans: TokenSpans) -> list[tuple[int, int]]:
    """`spans` of the last assistant's turn as spans of all `num_tokens` tokens of the trajectory."""
    last = next(turn for turn in reversed(turns) if turn.role == "assistant")
    length = spans[-1][1] if spans else 0
    return [(0, 0)] * last.start + list(spans) + [(length, length)] * (num_tokens - last.end)


def steps_to_tokens(steps: Iterable[StepScore], spans: TokenSpans) -> list[float]:
    """One value per token: each step's value on the token with its last character.

    Steps that end on one token add up. Raises ValueError for a step outside the completion.

    >>> steps_to_tokens([StepScore(0, 3, 1.0), StepScore(3, 4, -0.5)], [(0, 2), (2, 3), (3, 4)])
    [0.0, 1.0, -0.5]
    """
    values = [0.0] * len(spans)
    ends = [end for _, end in spans]
    num_chars = ends[-1] if ends else 0
    for step in steps:
        limit = num_chars if step.unit == "char" else len(spans)
        if step.end > limit:
            unit = "characters" if step.unit == "char" else "tokens"
            raise ValueError(
                f"the step [{step.start}, {step.end}) is outside the completion's {limit} {unit}"
            )
        # the first token that reaches the step's last character, past any empty tokens
        token = bisect_left(ends, step.end) if step.unit == "char" else step.end - 1
        values[token] += step.value
    return values
