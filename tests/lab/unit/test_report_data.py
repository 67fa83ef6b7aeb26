"""The report's data, worked out by hand: columns, counts, changes, sampled groups, tokens, timeline."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.report import NOTHING, ReportOptions, collect, timeline_data, write_report
from verl_lite.lab.report.columns import Group, page_rows
from verl_lite.plugins import Rollout
from verl_lite.plugins.records import Record, RecordWriter, StoredScore, to_scored


def record(number: int, reward: float | None, *, group: str = "g", **changes: Any) -> Record:
    own = {name: changes.pop(name) for name in list(changes) if name in Record.__dataclass_fields__}
    changes = {"completion": f"text {number}", "id": f"r{number}", "group": group, **changes}
    return Record(rollout=Rollout(**changes), row=number, reward=reward, **own)


def scores(**values: float | None) -> dict[str, StoredScore]:
    return {
        name: StoredScore(value=value, outcome="error" if value is None else "ok", reason="why")
        for name, value in values.items()
    }


def columns_of(*groups: Sequence[Record], before: Sequence[Record] = ()) -> dict[str, list[Any]]:
    """Each column's values, those in blocks and those with levels spelled out."""
    columns, blocks = page_rows([Group(rows=group, before=before) for group in groups], None)
    found: dict[str, list[Any]] = {}
    for column in columns:
        values = list(column.get("values", ()))
        if column["kind"] == "text":
            values = [None if at is None else column["levels"][at] for at in values]
        elif column["kind"] == "long":
            places = [(block, at) for block in blocks for at in block["columns"][column["name"]]]
            values = [None if at < 0 else block["texts"][at] for block, at in places]
        found[column["name"]] = values
    return found


def written(path: Path, records: Sequence[Record]) -> Path:
    with RecordWriter(path) as writer:
        writer.write([to_scored(one) for one in records])
    return path


def test_columns_by_hand() -> None:
    first = [record(1, 1.0, components=scores(correct=1.0)), record(2, 0.0, components=scores(correct=None))]
    second = [
        record(3, 0.1 + 0.2, group="h", columns={"label": "yes", "size": 3, "odd": [1]}),
        record(4, 0.3, group="h", columns={"label": "no", "size": float("nan"), "odd": "x"}),
    ]  # fmt: skip
    found = columns_of(first, second)
    assert found["group.size"] == [2, 2, 2, 2]
    assert found["group.mean"] == [0.5, 0.5, pytest.approx(0.3), pytest.approx(0.3)]
    assert found["group.spread"] == [1.0, 1.0, 0.0, 0.0]  # 0.1 + 0.2 and 0.3 differ by rounding alone
    assert found["correct"] == [1.0, None, None, None]
    assert found["correct.outcome"] == ["ok", "error", None, None]
    assert found["label"] == [None, None, True, False]
    assert found["size"] == [None, None, 3, None]
    assert found["odd"] == [None, None, "[1]", "x"]
    assert found["completion"] == ["text 1", "text 2", "text 3", "text 4"]
    assert "finish" not in found  # nobody has one


def test_a_column_of_the_data_set_yields_to_one_of_ours() -> None:
    own = {"reward": 5, "correct.reason": "mine", "__proto__": 1, "label": "cat"}
    found = columns_of([record(1, 0.5, columns=own, components=scores(correct=1.0, reward=0.25))])
    assert (found["reward"], found["column.reward"], found["component.reward"]) == ([0.5], [5], [0.25])
    assert (found["correct.reason"], found["column.correct.reason"]) == (["why"], ["mine"])
    assert (found["__proto__"], found["column.label"]) == ([1], ["cat"])  # no label in any usual spelling


def test_changes_by_hand() -> None:
    """Rewards (1, 0, None) become (1, 1, 0): advantages (1, -1) before, 2**-0.5 twice and -2**0.5 after."""
    before = [
        record(1, 1.0, components=scores(a=1.0)),
        record(2, 0.0, components=scores(a=0.0)),
        record(3, None),
    ]
    after = [
        record(1, 1.0, components=scores(a=1.0)),
        record(2, 1.0, components=scores(a=1.0)),
        record(3, 0.0),
    ]
    found = columns_of(after, before=before)
    assert found["changed"] == [False, True, True]
    assert found["group.changed"] == [True] * 3
    assert found["group.reordered"] == [False] * 3
    assert found["before.reward"] == [1.0, 0.0, None]
    assert found["before.a"] == [1.0, 0.0, None]
    assert found["before.group.spread"] == [1.0] * 3
    assert found["before.advantage"] == pytest.approx([1.0, -1.0, None], abs=1e-4)
    assert found["after.advantage"] == pytest.approx([0.5**0.5, 0.5**0.5, -(2**0.5)], abs=1e-4)
    assert found["advantage.change"] == pytest.approx([1 - 0.5**0.5, 1 + 0.5**0.5, None], abs=1e-4)


def test_the_summary_counts_all_rows_whatever_the_page_holds(tmp_path: Path) -> None:
    records = [
        record(4 * group + at, None if (group, at) == (0, 0) else float(at > 1), group=f"g{group}",
               dropped_because="error" if (group, at) == (0, 0) else "", columns={"is_correct": at != 2},
               components=scores(correct=None if (group, at) == (0, 0) else float(at > 1)))
        for group in range(10) for at in range(4)
    ]  # fmt: skip
    data = collect([written(tmp_path / "r.parquet", records)], ReportOptions(max_rollouts=12))
    summary = data["summary"]
    assert (summary["num_rows"], summary["num_groups"], summary["num_shown"]) == (40, 10, 12)
    assert (summary["num_dropped"], summary["num_flat"], summary["num_rewarded"]) == (1, 0, 39)
    assert summary["mean_reward"] == pytest.approx(20 / 39)
    assert summary["failed"] == {"correct": {"error": 1}}
    assert summary["labels"] == {"correct": [10, 10, 19, 0]}  # at 3 and 2 accepted; at 0 and 1 rejected
    assert summary["primary"] == "correct"
    group = next(column for column in data["columns"] if column["name"] == "group")
    assert [list(group["values"]).count(code) for code in range(len(group["levels"]))] == [4, 4, 4]


def test_texts_are_cut_into_blocks_with_each_text_once() -> None:
    prompt = [{"role": "user", "content": "q" * 300_000}]
    rows = [record(at, 0.0, prompt=prompt, completion=f"{at}" * 400_000) for at in range(6)]
    _, blocks = page_rows([Group(rows=rows)], None)
    assert [block["size"] for block in blocks] == [2, 2, 2]
    assert [len(block["texts"]) for block in blocks] == [3, 3, 3]
    assert blocks[1]["columns"] == {"prompt": [0, 0], "completion": [1, 2]}


def test_what_json_lacks_is_null_on_the_page(tmp_path: Path) -> None:
    score = StoredScore(value=1.0, outcome="ok", details={"loss": float("nan"), "deep": [float("inf")]})
    rows = [record(1, 1.0, components={"a": score}, columns={"size": float("inf")}, logprobs=[float("-inf")],
                   completion_ids=[5])]  # fmt: skip
    _, blocks = page_rows([Group(rows=rows)], None)
    places = {name: at for name, [at] in blocks[0]["columns"].items()}
    assert json.loads(blocks[0]["texts"][places["#details"]]) == {"a": {"loss": None, "deep": [None]}}
    assert json.loads(blocks[0]["texts"][places["#tokens"]]) == {"ids": [5], "logprobs": [None]}
    data = collect([written(tmp_path / "r.parquet", rows)], ReportOptions(title="<b>{{head}}"))
    text = write_report(data, tmp_path / "r.html").read_text()
    assert "<title>&lt;b&gt;{{head}} · verl-lite report</title>" in text


def test_token_texts_come_from_a_tokenizer(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"▁the": 0, "▁cat": 1, "s": 2, "?": 3}, "?"))
    tokenizer.decoder = tokenizers.decoders.Metaspace()  # strips the space before the first token
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = written(tmp_path / "r.parquet", [record(1, 1.0, completion_ids=[0, 1, 2], logprobs=[0.0] * 3)])
    data = collect([path], ReportOptions(tokenizer=tmp_path))
    assert data["token_texts"] == {"0": " the", "1": " cat", "2": "s"}
    assert collect([path])["token_texts"] == {}
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"--tokenizer .*: expected a folder with a tokenizer.json"):
        collect([path], ReportOptions(tokenizer=tmp_path))


def test_against_other_rollouts_is_refused(tmp_path: Path) -> None:
    one = written(tmp_path / "one.parquet", [record(1, 1.0)])
    other = written(tmp_path / "other.parquet", [record(1, 1.0, completion="another")])
    with pytest.raises(DataError, match="another completion on the two sides"):
        collect([one], ReportOptions(against=str(other)))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file of rows: expected a file"):
        collect([tmp_path])


def test_an_evaluation_s_data(tmp_path: Path) -> None:
    folder = tmp_path / "before"
    folder.mkdir()
    measures = [{"name": "perplexity", "value": 3.25, "low": None, "high": None, "is_share": False}]
    datasets = {name: {"measures": measures, "prompts": {}} for name in ("sums", "words")}
    (folder / "results.json").write_text(json.dumps({"name": "q", "model": "sft", "datasets": datasets}))
    for name in ("sums_samples", "sums_greedy", "words_greedy"):
        written(folder / f"{name}.parquet", [record(1, 1.0), record(2, 0.0)])
    data = collect([folder])
    assert data["evaluations"] == [
        {"name": "before", "model": "sft", "datasets": {"sums": measures, "words": measures}}
    ]
    assert data["summary"]["num_rows"] == 4  # the samples of sums, the greedy answers of words
    assert data["runs"] == []
    (folder / "results.json").write_text("[]")
    with pytest.raises(DataError, match="holds no results of an evaluation"):
        collect([folder])


def _timeline(folder: Path, *lines: tuple[str, str, float, float, int]) -> Path:
    keys = ("worker", "stage", "start_s", "end_s", "step")
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)
    (folder / "timeline.jsonl").write_text(text + '{"worker": "half a li', encoding="utf-8")
    return folder


def test_waiting_by_hand(tmp_path: Path) -> None:
    """Of 10 s the learner works 4 and waits 6: 5 while the others sample, 1 while nobody works."""
    folder = _timeline(
        tmp_path / "run",
        ("engine 0", "rollout", 100.0, 104.0, 1),
        ("engine 1", "rollout", 100.0, 105.0, 1),
        ("learner", "wait_rollouts", 100.0, 105.0, 1),
        ("learner", "update", 105.0, 109.0, 1),
        ("learner", "wait_rollouts", 109.0, 110.0, 2),
    )
    data = timeline_data(folder / "timeline.jsonl")
    assert data is not None
    rows = {row["worker"]: row for row in data["workers"]}
    assert rows["learner"]["stages"] == [("update", 0.4)]
    assert rows["learner"]["waited"] == pytest.approx(0.6)
    assert dict(rows["learner"]["for"]) == {"rollout": 0.5, NOTHING: 0.1}
    assert rows["engine 0"]["waited"] == pytest.approx(0.6)
    assert dict(rows["engine 0"]["for"]) == {"update": 0.4, "rollout": 0.1, NOTHING: 0.1}
    assert len(data["bars"]) == 5
    assert data["bars"][3] == ["learner", "update", 5.0, 9.0, 1]
    assert timeline_data(tmp_path / "none.jsonl") is None


def test_many_workers_share_lanes(tmp_path: Path) -> None:
    lines = [(f"rollouts {n}+1", "rollout", float(n), n + 1.5, n) for n in range(40)]
    data = timeline_data(_timeline(tmp_path / "run", *lines) / "timeline.jsonl")
    assert data is not None
    [row] = data["workers"]
    assert row["worker"] == "rollouts"
    assert row["stages"] == [("rollout", 1.0)]
    assert len(data["bars"]) == 8
