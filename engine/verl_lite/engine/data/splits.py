"""Generated rows in two splits that never share a question, whatever the seed."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from verl_lite.engine.data.arithmetic import Split

HELD_OUT_SHARE = 10  # one question in ten is held out
PATIENCE = 2000  # rows without a new question, after which there are no more


def different_rows(
    made: Iterable[dict[str, Any]], split: Split, *, num_rows: int
) -> Iterator[dict[str, Any]]:
    """`num_rows` of the made rows, with different questions of the split, which a hash of the text decides.

    Raises ValueError where the questions run out.
    """
    seen: set[str] = set()
    idle = 0
    for row in made:
        if len(seen) == num_rows:
            return
        question = row["question"]
        is_held_out = zlib.crc32(question.encode()) % HELD_OUT_SHARE == 0
        is_new = question not in seen and is_held_out == (split == "held_out")
        if is_new:
            seen.add(question)
            yield row
        idle = 0 if is_new else idle + 1
        if idle > PATIENCE:
            break
    if len(seen) < num_rows:
        raise ValueError(f"{split} has about {len(seen)} different rows, {num_rows} were requested")
