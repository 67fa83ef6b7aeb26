"""verl's rollout dumps: one JSONL file per step, from `trainer.rollout_data_dir` or validation_data_dir.

    {"input", "output", "gts", "score", "step", and every key of the reward's dict}
As written by verl 0.9.1. Older files lack `gts`; those of the newer trainer (`ppo/v1`) have
`uid` = `{uid}_{session}_{output}`, different for every sample: the group is the uid before them.
"""

import re
from collections.abc import Iterable
from typing import Any

from verl_lite.lab.formats.rows import make_record, number_or_none
from verl_lite.plugins.records import Record

# the template of Hermes and Qwen, the default of verl's agent loops, decoded without special tokens
_BETWEEN = re.compile(
    r"\n?user\n(?P<results>(?:<tool_response>\n.*?\n</tool_response>\n?)+)assistant\n", re.DOTALL
)
_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)
_OURS = frozenset({"input", "output", "gts", "score", "step", "uid", "request_id"})
_KEY = re.compile(r"(.+)_(\d+)_(\d+)")


def _turns(output: Any) -> dict[str, Any]:
    """The completion; the output of an agent loop has tool results between the replies, which are turns."""
    if not isinstance(output, str) or not (places := list(_BETWEEN.finditer(output))):
        return {"completion": output}
    turns, start = [], 0
    for place in places:
        turns.append({"role": "assistant", "content": output[start : place.start()]})
        turns += [{"role": "tool", "content": text} for text in _RESULT.findall(place["results"])]
        start = place.end()
    turns.append({"role": "assistant", "content": output[start:]})
    return {"completion": output[start:], "turns": turns}


def convert(row: Any, number: int) -> Iterable[Record]:
    """One record per row. Numbers of the reward's dict become recorded components, the rest columns."""
    others = {key: value for key, value in row.items() if key not in _OURS}
    scores = {  # a non-finite float is a component without a value
        key: value
        for key, value in others.items()
        if isinstance(value, float) or number_or_none(value) is not None
    }
    uid = row.get("uid")
    sample = _KEY.fullmatch(uid) if isinstance(uid, str) else None
    yield make_record(
        number,
        id=row.get("request_id") or (uid if sample else None),
        group=sample[1] if sample else uid,
        sample_index=int(sample[2]) if sample else None,
        step=row.get("step"),
        prompt=row.get("input"),
        **_turns(row.get("output")),
        reference=row.get("gts"),
        reward=row.get("score"),
        scores=scores,
        columns={**{k: v for k, v in others.items() if k not in scores}, "ground_truth": row.get("gts")},
    )
