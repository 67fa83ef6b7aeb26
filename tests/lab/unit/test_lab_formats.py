"""Dumps of other trainers, made by their own code (record_adapter_calls.py) where a test says so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from verl_lite.cli import main
from verl_lite.errors import ConfigError, DataError
from verl_lite.lab import open_rollouts, score_file
from verl_lite.lab.formats import FORMATS
from verl_lite.plugins import RewardsConfig
from verl_lite.plugins.records import BadRow, Record

FIXTURES = Path(__file__).parents[1] / "fixtures"
LEAVE_OTHERS_OUT = {"inspect", "langfuse", "openai-evals-log", "opentelemetry"}  # files of many kinds of rows
EXACT = RewardsConfig(rewards={"correct": {"use": "exact"}})


def read(path: Path, name: str = "auto", bad: list[BadRow] | None = None) -> list[Record]:
    with open_rollouts(path, format=name) as rollouts:
        groups = rollouts.groups(None if bad is None else bad.append)
        return [record for group in groups for record in group]


def detected(path: Path) -> str:
    with open_rollouts(path) as rollouts:
        return rollouts.files[0].format


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values(record: Record) -> dict[str, float | None]:
    return {name: score.value for name, score in record.components.items()}


def test_a_dump_that_verl_wrote() -> None:
    path = FIXTURES / "verl_rollouts.jsonl"
    assert detected(path) == "verl"
    first, second, third = read(path)
    assert first.rollout.prompt == ({"role": "user", "content": "What is 2 + 2?"},)
    assert [r.rollout.completion for r in (first, second, third)] == ["4", "the answer is 5", "6"]
    assert [r.rollout.reference for r in (first, second, third)] == ["4", "4", "6"]
    assert [r.reward for r in (first, second, third)] == [1.5, 0.125, 1.5]
    assert values(second) == {"correct": 0.0, "brevity": 0.25}
    assert {r.step for r in (first, second, third)} == {7}
    assert first.rollout.group == second.rollout.group != third.rollout.group


def test_keys_of_verls_reward_dicts(tmp_path: Path) -> None:
    row = {"input": "q", "output": "a", "gts": {"x": [1]}, "score": 0.5, "step": 1, "uid": "u", "pred": "a"}
    path = tmp_path / "1.jsonl"
    path.write_text(json.dumps({**row, "acc": True, "len": float("nan"), "request_id": "r"}))
    (record,) = read(path)
    assert values(record) == {"acc": 1.0, "len": None}
    assert record.components["len"].outcome == "abstain"
    assert record.rollout.columns == {
        "pred": "a",
        "ground_truth": {"x": [1]},
        "reference": {"x": [1]},
    }
    assert (record.rollout.id, record.rollout.group, record.rollout.reference) == ("r", "u", '{"x": [1]}')


@pytest.mark.parametrize("name", ["trl_completions", "trl_completions_text"])
def test_tables_that_trl_wrote(name: str) -> None:
    path = FIXTURES / f"{name}.parquet"
    assert detected(path) == "trl"
    records = read(path)
    assert [r.rollout.prompt[0]["content"] for r in records] == ["What is 3 + 3?"] * 2 + [
        "What is 2 + 2?"
    ] * 2
    assert [len(r.rollout.completion) for r in records] == [6] * 4 or name.endswith("_text")
    assert {r.step for r in records} == {2}
    for record in records:
        assert set(record.components) == {"verl_lite", "brevity", "correct"}
        assert record.reward is None  # the weights of the functions are not in the table
        assert values(record)["verl_lite"] == pytest.approx(values(record)["brevity"] * 0.5)  # type: ignore[operator]
    advantages = [r.advantage for r in records]
    assert sum(a for a in advantages if a is not None) == pytest.approx(0, abs=1e-6)
    assert len({r.rollout.group for r in records}) == 2


def test_the_rewards_of_a_trl_table_are_those_of_a_single_function(tmp_path: Path) -> None:
    row = {"step": 1, "prompt": "q", "completion": "a", "advantage": None}
    (single,) = read(write(tmp_path / "a.jsonl", {**row, "f": 0.5, "reference": "a", "note": "x"}), "trl")
    assert (single.reward, single.rollout.reference, single.rollout.columns) == (
        0.5,
        "a",
        {"note": "x", "reference": "a"},
    )
    (several,) = read(write(tmp_path / "b.jsonl", {**row, "f": 0.5, "g": None}), "trl")
    assert (several.reward, values(several)) == (None, {"f": 0.5, "g": None})


def test_traces_that_verifiers_wrote() -> None:
    path = FIXTURES / "verifiers_traces.jsonl"
    assert detected(path) == "verifiers"
    first, second, failed = read(path)
    assert [dict(m) for m in first.rollout.prompt] == [{"role": "user", "content": "What is 2 + 2?"}]
    assert [r.rollout.completion for r in (first, second, failed)] == ["4", "the answer is 5", "drop me"]
    assert (first.rollout.reference, first.rollout.columns["agent"]) == ("4", "agent")
    assert [r.reward for r in (first, second, failed)] == [1.5, 0.125, None]  # the failed one is no 0
    assert [values(r) for r in (first, failed)] == [{"verl_lite": 1.5}, {"verl_lite": None}]
    assert (first.rollout.prompt_ids, first.rollout.completion_ids) == ([9], [1, 2])
    assert first.rollout.logprobs == [-0.5, -0.25]
    assert (first.step, first.rollout.policy_version, first.rollout.id) == (3, 3, "trace-0")
    assert [r.rollout.group for r in (first, second, failed)] == ["g0", "g0", "g1"]


def test_a_trace_has_one_record_a_branch(tmp_path: Path) -> None:
    def node(role: str, text: str, parent: int | None, sampled: bool = False) -> dict[str, Any]:
        return {"parent": parent, "sampled": sampled, "message": {"role": role, "content": text}}

    nodes = [
        node("user", "q", None),
        node("assistant", "first", 0, True),
        node("tool", "result", 1),
        node("assistant", "one", 2, True),
        node("assistant", "other", 0, True),
        node("user", "unanswered", 4),
    ]
    rewards = {"a": {"score": 0.5, "weight": 2.0}, "b": {"score": 1.0, "weight": -0.25}}
    trace = {"id": "t", "nodes": nodes, "task": {"data": {"answer": 7}}, "rewards": rewards, "ok": True}
    cut = {**trace, "id": "u", "stop_condition": "max_turns", "nodes": nodes[:2]}
    one, other, truncated = read(write(tmp_path / "traces.jsonl", trace, cut))
    assert [m["content"] for m in one.rollout.prompt] == ["q"]
    assert [turn.content for turn in one.rollout.turns] == ["first", "result", "one"]
    assert other.rollout.turns == ()
    assert (one.rollout.completion, other.rollout.completion) == ("one", "other")
    assert (one.rollout.id, other.rollout.id, truncated.rollout.id) == ("t/0", "t/1", "u")
    assert (one.reward, values(one), one.rollout.reference) == (0.75, {"a": 0.5, "b": 1.0}, "7")
    assert (truncated.rollout.finish_reason, one.row, other.row, truncated.row) == ("length", 1, 1, 2)


def test_results_that_verifiers_wrote() -> None:
    path = FIXTURES / "verifiers_results.jsonl"
    assert detected(path) == "verifiers"
    records = read(path)
    assert [r.rollout.completion for r in records] == ["4", "the answer is 5", "6"]
    assert [r.reward for r in records] == [1.5, 0.125, 1.5]
    assert [r.rollout.group for r in records] == ["0", "0", "1"]
    assert values(records[1]) == {"correct": 0.0, "brevity": 0.25}
    assert records[2].rollout.columns == {"level": 1, "answer": "6", "example_id": 1, "reference": "6"}
    assert records[0].rollout.finish_reason == "stop"


def test_a_result_with_an_error_has_no_reward(tmp_path: Path) -> None:
    row = {"example_id": 0, "prompt": "q", "completion": [], "reward": 0.0, "error": "boom", "answer": "4"}
    (record,) = read(write(tmp_path / "results.jsonl", row))
    assert (record.reward, record.rollout.completion) == (None, "")


def test_openrlhf_by_its_documented_format(tmp_path: Path) -> None:
    row = {"input": "q", "output": "a", "reward": -0.5, "label": "a", "source": "s"}
    path = write(tmp_path / "out.jsonl", row)
    assert detected(path) == "openrlhf"
    (record,) = read(path)
    assert (record.reward, record.rollout.reference, record.rollout.columns) == (
        -0.5,
        "a",
        {"source": "s", "reference": "a"},
    )


def test_open_instruct_by_its_documented_format(tmp_path: Path) -> None:
    row = {
        "training_step": 4,
        "decoded_responses": ["a", "b"],
        "queries": [[1, 2], [1, 2]],
        "decoded_queries": ["q", "q"],
        "ground_truths": [["a"], ["x", "y"]],
        "datasets": ["math", "math"],
        "scores": [10.0, 0.0],
        "finish_reasons": ["stop", "length"],
        "responses": [[5], [6, 7]],
        "advantages": [1.0, -1.0],
        "lr": 0.1,
    }
    path = write(tmp_path / "traces_run.jsonl", row, {**row, "scores": [1.0]})
    assert detected(path) == "open-instruct"
    bad: list[BadRow] = []
    one, two = read(path, bad=bad)
    assert (one.rollout.prompt_text, one.rollout.completion, one.rollout.reference) == ("q", "a", "a")
    assert (two.rollout.reference, two.rollout.finish_reason, two.rollout.completion_ids) == (
        '["x", "y"]',
        "length",
        [6, 7],
    )
    assert [(r.reward, r.advantage, r.step) for r in (one, two)] == [(10.0, 1.0, 4), (0.0, -1.0, 4)]
    assert (one.rollout.columns["data_source"], one.rollout.columns["lr"]) == ("math", 0.1)
    assert one.rollout.group == two.rollout.group
    assert [b.reason for b in bad] == ["'scores' has 1 entries, 'decoded_responses' has 2"]


def test_a_flag_in_label_is_no_reference(tmp_path: Path) -> None:
    """TRL's unpair_preference_dataset writes such rows for KTO."""
    asked, said = [{"role": "user", "content": "1+1?"}], [{"role": "assistant", "content": "2"}]
    path = write(tmp_path / "kto.jsonl", {"prompt": asked, "completion": said, "label": True})
    (record,) = read(path)
    assert (record.rollout.reference, record.rollout.columns) == (None, {"label": True})
    text = write(tmp_path / "text.jsonl", {"prompt": asked, "completion": said, "label": "2"})
    assert [r.rollout.reference for r in read(text)] == ["2"]


def test_sharegpts_roles_in_openais_shape(tmp_path: Path) -> None:
    """As TRL's maybe_convert_to_chatml writes them."""
    turns = [{"role": "human", "content": "1+1?"}, {"role": "gpt", "content": "2"}]
    (record,) = read(write(tmp_path / "chatml.jsonl", {"messages": turns}))
    assert [dict(m) for m in record.rollout.prompt] == [{"role": "user", "content": "1+1?"}]
    assert record.rollout.completion == "2"


def test_files_of_ours_and_plain_ones_are_read_as_before(tmp_path: Path) -> None:
    plain = {"prompt": "q", "completion": "a", "answer": "4", "reward": 1.0, "step": 2, "advantage": 0.5}
    assert detected(write(tmp_path / "p.jsonl", plain)) == "verl-lite"
    scored = tmp_path / "scored.parquet"
    score_file(tmp_path / "p.jsonl", EXACT, output=scored)
    assert detected(scored) == "verl-lite"
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"completion": \n')
    assert detected(bad) == "verl-lite"


def test_what_fits_no_format_or_two_is_said(tmp_path: Path) -> None:
    none = write(tmp_path / "none.jsonl", {"question": "q", "response": "a"})
    with pytest.raises(DataError, match=r"keys are: question, response\. The nearest is verl-lite, which"):
        detected(none)
    row = {"input": "q", "output": "a", "score": 1.0, "reward": 1.0, "step": 1}
    two = write(tmp_path / "two.jsonl", row)
    with pytest.raises(DataError, match=r"verl and openrlhf; choose one with --format\. Its keys: input"):
        detected(two)
    assert [r.reward for r in read(two, "verl")] == [1.0]
    with pytest.raises(ConfigError, match=r"--format vrel: the formats are auto, .*verl-lite, verl, trl"):
        read(two, "vrel")
    with pytest.raises(DataError, match="no file at"):
        read(tmp_path / "missing.jsonl")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_rows_of_the_wrong_shape_are_bad_rows(name: str, tmp_path: Path) -> None:
    rows = [
        [1],
        "x",
        3,
        None,
        {},
        {"traces": 1},
        {"nodes": [{}], "task": 1},
        {"decoded_responses": 1, "scores": 2},
    ]
    path = write(tmp_path / "odd.jsonl", *rows)
    bad: list[BadRow] = []
    assert read(path, name, bad) == []
    objects = set() if name in LEAVE_OTHERS_OUT else {5, 6, 7, 8}
    assert {b.row for b in bad} >= {1, 2, 3, 4} | objects
    assert all(b.reason for b in bad)


def test_the_command_scores_a_dump(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(FIXTURES / "verl_rollouts.jsonl", "7.jsonl")
    Path("rewards.yaml").write_text("rewards:\n  correct: {use: exact}\n")

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        monkeypatch.setattr("sys.argv", ["verl-lite", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(printed.out) if printed.out else {}, printed.err

    for name in ("auto", "verl"):
        code, summary, _ = run(
            "score", "7.jsonl", "-c", "rewards.yaml", "--format", name, "--no-cache", "--json"
        )
        assert code == 0
        assert summary["components"]["correct"]["mean"] == pytest.approx(2 / 3)
    code, report, _ = run("diff", "7.jsonl", "-a", "recorded", "-b", "rewards.yaml", "--no-cache", "--json")
    assert code == 0
    assert report["components"]["correct"]["num_changed"] == 0
    code, _, error = run("score", "7.jsonl", "-c", "rewards.yaml", "--format", "vrel", "--no-cache")
    assert code == 2
    assert "the formats are auto" in error
