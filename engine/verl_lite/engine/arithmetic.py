"""The embedded task: two-digit addition with a scratch line, generated, so no data set is needed.

    user       47+38=
    assistant  <think>7+8=15,4+3+1=8</think>\\boxed{85}

The numbers are split once by a fixed rule: no held-out pair is ever trained on.
"""

import random
from collections.abc import Iterator
from typing import Any, Literal

__all__ = ["arithmetic_rows", "worked_answer"]

SMALLEST, LARGEST = 10, 99
HELD_OUT_PAIRS = 1000


def worked_answer(a: int, b: int) -> str:
    r"""The answer a careful student writes.

    >>> worked_answer(47, 38)
    '<think>7+8=15,4+3+1=8</think>\\boxed{85}'
    """
    ones = a % 10 + b % 10
    carry = ones // 10
    tens = a // 10 + b // 10 + carry
    return f"<think>{a % 10}+{b % 10}={ones},{a // 10}+{b // 10}+{carry}={tens}</think>\\boxed{{{a + b}}}"


def arithmetic_rows(
    split: Literal["train", "held_out"], *, num_rows: int, seed: int
) -> Iterator[dict[str, Any]]:
    """`num_rows` rows {question, answer, reference} of the split; `seed` chooses and orders them.

    Raises ValueError for more rows than the split has pairs (7,100 to train on, 1,000 held out).
    """
    numbers = range(SMALLEST, LARGEST + 1)
    pairs = [(a, b) for a in numbers for b in numbers]
    random.Random("the split never changes").shuffle(pairs)
    pairs = pairs[:HELD_OUT_PAIRS] if split == "held_out" else pairs[HELD_OUT_PAIRS:]
    if num_rows > len(pairs):
        raise ValueError(f"{split} has {len(pairs)} pairs of numbers, {num_rows} rows were asked for")
    for a, b in random.Random(f"{split}:{seed}").sample(pairs, num_rows):
        yield {"question": f"{a}+{b}=", "answer": worked_answer(a, b), "reference": str(a + b)}
