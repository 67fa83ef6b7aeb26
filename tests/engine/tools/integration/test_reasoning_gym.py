"""A task of reasoning-gym through `rollout`, `score` and `diagnose`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from verl_lite.cli.app import app
from verl_lite.engine.config import DatasetConfig, SFTConfig
from verl_lite.engine.data import read_rows
from verl_lite.engine.sft.rows import conversation_of
from verl_lite.plugins.records import read_records

WORDS = {"task": "reasoning_gym/spell_backward", "task_options": {"min_word_len": 3, "max_word_len": 4}}


@pytest.fixture
def config(small_run: dict[str, Any], tmp_path: Path) -> Path:
    held_out = {**WORDS, "split": "held_out", "num_rows": 4}
    changed = {
        "data": {"train": {**WORDS, "num_rows": 8}, "held_out": held_out},
        "model": {"tiny": {**small_run["model"]["tiny"], "max_context_tokens": 80}},
        "rollout": small_run["rollout"] | {"max_prompt_tokens": 60},
        "rewards": {"correct": {"use": "reasoning_gym", "options": {"extract": "whole"}}},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**small_run, **changed}))
    return path


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def component(path: Path) -> Sequence[tuple[float | None, str]]:
    found = [record.components["correct"] for record in read_records(path)]
    return [(score.value, score.reason) for score in found]


def test_the_rows_of_a_rollout_carry_what_the_scorer_needs(config: Path, tmp_path: Path) -> None:
    sampled = tmp_path / "r.jsonl"
    made = run("rollout", config, "--held-out", "--samples", 2, "--debug-inline", "-o", sampled)
    assert (made["num_prompts"], made["num_rollouts"]) == (4, 8)
    assert {value for value, _ in component(sampled)} == {0.0}  # a random model

    rows = [json.loads(line) for line in sampled.read_text().splitlines()]
    for row in rows[::2]:
        row["completion"] = row["reference"]
    edited, rescored = tmp_path / "edited.jsonl", tmp_path / "rescored.jsonl"
    edited.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("score", edited, "-c", config, "-o", rescored)
    assert [value for value, _ in component(rescored)] == [1.0, 0.0] * 4

    advice = run("diagnose", config, "--prompts", 3, "--samples", 2, "--debug-inline")
    assert "SFT" in json.dumps(advice)


def test_sft_on_the_bare_answer_is_what_the_reward_reads_whole() -> None:
    data = DatasetConfig.model_validate({**WORDS, "num_rows": 3})
    for at, row in enumerate(read_rows(data, seed=0)):
        chat = conversation_of(row, at, data, SFTConfig(answer="reference"))
        question, answer = (message["content"] for message in chat.messages)
        assert question.endswith(f": {answer[::-1]}")
