"""The built-in task for tools: products of two-digit numbers, which the tool `calculator` can compute.

    user       47*38=
    assistant  [calculator(expression="47*38")]
    tool       1786
    assistant  \\boxed{1786}

The teacher of the training answers calls the tool in 40% of the rows, and every fourth of its calls lacks the
closing parenthesis; otherwise it rounds both numbers down (1200), which is nearly always wrong. A model that
imitates it rounds, as that is likelier. The split of the pairs of numbers never changes: no held-out pair is
trained on.
"""

import random
import zlib
from collections.abc import Iterator
from typing import Any

from verl_lite.engine.data.arithmetic import LARGEST, SMALLEST, Split

HELD_OUT_SHARE = 10  # one pair in ten is held out
MOST = {"train": 7000, "held_out": 700}
CALLS, BREAKS = 0.4, 0.25


def product_rows(split: Split, *, num_rows: int, seed: int) -> Iterator[dict[str, Any]]:
    """`num_rows` rows {question, answer, reference} of the split; `seed` chooses and orders them.

    `answer` is the messages after the question: the teacher's in training, right ones held out. Raises
    ValueError for too many rows.
    """
    if num_rows > MOST[split]:
        raise ValueError(f"{split} has {MOST[split]} rows, {num_rows} were requested")
    generator = random.Random(f"products:{split}:{seed}")
    seen: set[str] = set()
    while len(seen) < num_rows:
        a, b = generator.randint(SMALLEST, LARGEST), generator.randint(SMALLEST, LARGEST)
        question = f"{a}*{b}="
        is_held_out = zlib.crc32(question.encode()) % HELD_OUT_SHARE == 0
        if question in seen or is_held_out != (split == "held_out"):
            continue
        seen.add(question)
        answer = _teacher(a, b, generator) if split == "train" else _by_tool(a, b)
        yield {"question": question, "answer": answer, "reference": str(a * b)}


def _teacher(a: int, b: int, generator: random.Random) -> list[dict[str, Any]]:
    if generator.random() >= CALLS:
        return [{"role": "assistant", "content": f"\\boxed{{{100 * (a // 10) * (b // 10)}}}"}]
    if generator.random() < BREAKS:
        return [{"role": "assistant", "content": f'[calculator(expression="{a}*{b}"]'}]
    return _by_tool(a, b)


def _by_tool(a: int, b: int) -> list[dict[str, Any]]:
    function = {"name": "calculator", "arguments": {"expression": f"{a}*{b}"}}
    return [
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": str(a * b)},
        {"role": "assistant", "content": f"\\boxed{{{a * b}}}"},
    ]
