"""Trajectories that other trainers wrote keep their turns."""

import json
from pathlib import Path
from typing import Any

from verl_lite.lab import open_rollouts
from verl_lite.lab.report.report_data import collect
from verl_lite.plugins import Rollout

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
QUESTION = {"role": "user", "content": "1 + 1?"}
SAID = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "2", "tool_call_id": "c1"},
    {"role": "assistant", "content": "It is 2."},
]


def read(folder: Path, *rows: Any) -> list[Rollout]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_rollouts(path) as rollouts:
        return [record.rollout for group in rollouts.groups() for record in group]


def is_the_trajectory(rollout: Rollout) -> bool:
    said = [(turn.role, turn.content) for turn in rollout.turns]
    return (
        list(rollout.prompt) == [QUESTION]
        and rollout.completion == "It is 2."
        and said == [("assistant", ""), ("tool", "2"), ("assistant", "It is 2.")]
        and rollout.turns[0].tool_calls == (CALL,)
        and rollout.turns[1].tool_call_id == "c1"
    )


def test_messages_with_tool_calls(tmp_path: Path) -> None:
    (rollout,) = read(tmp_path, {"messages": [QUESTION, *SAID]})
    assert is_the_trajectory(rollout)
    unfinished = [QUESTION, *SAID[:2]]
    (cut,) = read(tmp_path, {"messages": unfinished})
    assert [turn.role for turn in cut.turns] == ["assistant", "tool"]
    assert cut.completion == ""


def test_a_plain_chat_is_a_prompt_and_a_reply(tmp_path: Path) -> None:
    chat = [
        QUESTION,
        {"role": "assistant", "content": "2"},
        QUESTION,
        {"role": "assistant", "content": "Yes, 2."},
    ]
    (rollout,) = read(tmp_path, {"messages": [*chat, {"role": "user", "content": "thanks"}]})
    assert rollout.turns == ()
    assert (len(rollout.prompt), rollout.completion) == (3, "Yes, 2.")


def test_prompt_and_completion_as_messages(tmp_path: Path) -> None:
    (rollout,) = read(tmp_path, {"prompt": [QUESTION], "completion": SAID})
    assert is_the_trajectory(rollout)


def test_trl_s_table(tmp_path: Path) -> None:
    row = {"step": 3, "prompt": [QUESTION], "completion": SAID, "correct": 1.0, "advantage": 0.5}
    (rollout,) = read(tmp_path, row)
    assert is_the_trajectory(rollout)


def test_verifiers_results(tmp_path: Path) -> None:
    row = {
        "example_id": 1,
        "prompt": [QUESTION],
        "completion": SAID,
        "answer": "2",
        "reward": 1.0,
        "task": "t",
    }
    (rollout,) = read(tmp_path, row)
    assert is_the_trajectory(rollout)


def test_a_trace_of_verifiers_has_the_tokens_of_every_turn(tmp_path: Path) -> None:
    def node(message: dict[str, Any], parent: int | None, ids: list[int], mask: list[int]) -> dict[str, Any]:
        sampled = message["role"] == "assistant"
        found = {"parent": parent, "message": message, "sampled": sampled, "token_ids": ids, "mask": mask}
        return found | ({"logprobs": [-0.5] * sum(mask)} if sampled else {})

    nodes = [
        node(QUESTION, None, [1, 2], []),
        node(SAID[0], 0, [3, 10, 11], [0, 1, 1]),
        node(SAID[1], 1, [20, 21, 22], []),
        node(SAID[2], 2, [4, 12, 13], [0, 1, 1]),
    ]
    (rollout,) = read(tmp_path, {"id": "t", "nodes": nodes, "task": {"data": {"answer": "2"}}, "ok": True})
    assert is_the_trajectory(rollout)
    assert list(rollout.prompt_ids) == [1, 2, 3]
    assert list(rollout.completion_ids) == [10, 11, 20, 21, 22, 4, 12, 13]
    assert list(rollout.logprobs) == [-0.5, -0.5, 0.0, 0.0, 0.0, 0.0, -0.5, -0.5]
    assert [(turn.start, turn.end) for turn in rollout.turns] == [(0, 2), (2, 5), (6, 8)]
    assert rollout.sampled_mask == [1, 1, 0, 0, 0, 0, 1, 1]


def test_an_agent_loop_of_verl(tmp_path: Path) -> None:
    output = (
        'I call.\n<tool_call>\n{"name": "add"}\n</tool_call>\nuser\n<tool_response>\n2\n</tool_response>\n'
        "<tool_response>\n3\n</tool_response>\nassistant\nIt is 2."
    )
    plain = {"input": "q", "output": "user\nassistant\n", "gts": "2", "score": 1.0, "step": 1}
    rollout, other = read(tmp_path, plain | {"output": output}, plain)
    assert [(turn.role, turn.content) for turn in rollout.turns] == [
        ("assistant", 'I call.\n<tool_call>\n{"name": "add"}\n</tool_call>'),
        ("tool", "2"),
        ("tool", "3"),
        ("assistant", "It is 2."),
    ]
    assert rollout.completion == "It is 2."
    assert other.turns == ()


def test_the_report_has_the_turns_of_each_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [QUESTION, *SAID]}) + "\n")
    (block,) = collect([path])["blocks"]
    (place,) = block["columns"]["#turns"]
    turns = json.loads(block["texts"][place])
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("assistant", ""),
        ("tool", "2"),
        ("assistant", "It is 2."),
    ]
    assert turns[0]["tool_calls"] == [CALL]
    assert [turn["outcome"] for turn in turns] == ["ok", "ok", "ok"]
