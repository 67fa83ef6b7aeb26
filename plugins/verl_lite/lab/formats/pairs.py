"""Preference pairs as rollouts: `chosen` and `rejected` (text or messages), two samples of one prompt.

The column `label` is true for the chosen one, so `verl-lite check --label label` says how often a reward
prefers what people preferred.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from verl_lite.lab.formats.fields import chat, is_chat
from verl_lite.lab.formats.rows import last_reply, make_record
from verl_lite.plugins.records import Record

_SIDES = ("chosen", "rejected")


def convert(row: Any, number: int) -> Iterable[Record]:
    """Two records per row. Raises TypeError for sides that are neither text nor messages."""
    others = {key: value for key, value in row.items() if key not in (*_SIDES, "prompt", "completion")}
    for index, side in enumerate(_SIDES):
        prompt, completion = _texts(row, side)
        yield make_record(
            number,
            id=f"{row['id']}/{index}" if row.get("id") is not None else f"row-{number}/{index}",
            group=f"row-{number}",
            sample_index=index,
            prompt=prompt,
            completion=completion,
            reference=row.get("reference", row.get("answer")),
            columns={**others, "label": side == "chosen"},
        )


def _texts(row: Mapping[str, Any], side: str) -> tuple[Any, str]:
    """(prompt, completion): the prompt of its own column, or what stands before the last reply."""
    prompt, said = row.get("prompt", row.get("question")), row[side]
    turns = chat(said) if is_chat(said) else said
    if is_chat(turns) and len(turns) > 1:  # whole conversations hold the prompt themselves
        return last_reply([], turns)
    return last_reply(chat(prompt) if is_chat(prompt) else prompt, turns)
