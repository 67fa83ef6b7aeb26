"""Rows of reasoning-gym's tasks: `data.train.task: reasoning_gym/NAME` (extra `reasoning`)."""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

from verl_lite.engine.data.arithmetic import Split
from verl_lite.engine.data.splits import HELD_OUT_SHARE, PATIENCE, different_rows
from verl_lite.plugins.builtin import REASONING_COLUMN, GymDataset, encode_entry, open_task

ENTRIES_PER_ROW = 2 * HELD_OUT_SHARE  # enough for the held-out rows, if half of the questions are new


def reasoning_rows(
    name: str, options: Mapping[str, object], split: Split, *, num_rows: int, seed: int
) -> Iterator[dict[str, Any]]:
    """`num_rows` different rows {question, answer, reference, reasoning_gym} of the task `name`.

    `answer` is the right one in <answer> tags, for a supervised warm-up, and `reference` as it is; some tasks
    know none. The column `reasoning_gym` is what the reward of that name reads. Raises ValueError for an
    unknown task, options it refuses, and more rows than it has.
    """
    # its entries are seeded with seed + index: neighbouring seeds would share nearly all of them
    spread = zlib.crc32(f"{name}:{seed}".encode())
    size = ENTRIES_PER_ROW * num_rows + PATIENCE  # some tasks make all of their entries at once
    dataset = open_task(name, options, seed=spread, size=size)
    return different_rows(_made(dataset, options, size), split, num_rows=num_rows)


def _made(dataset: GymDataset, options: Mapping[str, object], size: int) -> Iterator[dict[str, Any]]:
    for index in range(size):
        entry = dict(dataset[index])
        metadata = cast(Mapping[str, object], entry["metadata"])
        entry["metadata"] = {**metadata, "task_options": dict(options)}
        answer = entry["answer"]
        solution = {} if answer is None else {"answer": f"<answer>{answer}</answer>"}
        yield {
            "question": entry["question"],
            **solution,
            "reference": answer,
            REASONING_COLUMN: encode_entry(entry),
        }
