"""The built-in task: generated two-digit additions with a scratch line.

    user       47+38=
    assistant  <think>7+8=15,4+3+1=8</think>\\boxed{85}

The teacher of the training answers forgets the carry in 70% of the cases (4+3+0=7, so 75). A model that
imitates it gets sums without a carry right, and sums with one (45%) mostly wrong. References are always
right, so a reward can tell the two apart. The split of the pairs of numbers never changes: no held-out pair
is trained on.
"""

import random
from collections.abc import Iterator
from typing import Any, Literal

SMALLEST, LARGEST = 10, 99
HELD_OUT_PAIRS = 1000
FORGETS_CARRY = 0.7
Split = Literal["train", "held_out"]


def worked_answer(a: int, b: int, *, forgets_carry: bool = False) -> str:
    r"""The scratch line and the answer; wrong only if a carry is forgotten.

    >>> worked_answer(47, 38)
    '<think>7+8=15,4+3+1=8</think>\\boxed{85}'
    >>> worked_answer(47, 38, forgets_carry=True)
    '<think>7+8=15,4+3+0=7</think>\\boxed{75}'
    """
    ones = a % 10 + b % 10
    carry = 0 if forgets_carry else ones // 10
    tens = a // 10 + b // 10 + carry
    scratch = f"{a % 10}+{b % 10}={ones},{a // 10}+{b // 10}+{carry}={tens}"
    return f"<think>{scratch}</think>\\boxed{{{10 * tens + ones % 10}}}"


def arithmetic_rows(split: Split, *, num_rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """`num_rows` rows {question, answer, reference} of the split; `seed` chooses and orders them.

    Training answers are the teacher's; held-out answers are right. Raises ValueError for more rows than pairs
    (7,100 in train, 1,000 held out).
    """
    numbers = range(SMALLEST, LARGEST + 1)
    pairs = [(a, b) for a in numbers for b in numbers]
    random.Random("the split never changes").shuffle(pairs)
    pairs = pairs[:HELD_OUT_PAIRS] if split == "held_out" else pairs[HELD_OUT_PAIRS:]
    if num_rows > len(pairs):
        raise ValueError(f"{split} has {len(pairs)} pairs of numbers, {num_rows} rows were requested")
    generator = random.Random(f"{split}:{seed}")
    for a, b in generator.sample(pairs, num_rows):
        forgets = split == "train" and generator.random() < FORGETS_CARRY
        yield {
            "question": f"{a}+{b}=",
            "answer": worked_answer(a, b, forgets_carry=forgets),
            "reference": str(a + b),
        }
