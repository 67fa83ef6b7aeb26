"""The lab from Python: any source, any rewards, results in tables; nothing heavy until it is asked for."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from verl_lite.errors import ConfigError, DataError, PluginError
from verl_lite.lab import notebook as lab
from verl_lite.plugins import RewardsConfig, Rollout, Score, reward

# two prompts whose samples alternate
ROWS: list[dict[str, Any]] = [
    {"id": f"{group}{at}", "group": group, "prompt": f"{group}?", "completion": text, "reference": "4"}
    for at, text in enumerate(("4", "5", "44"))
    for group in "ab"
]
EXACT = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


@reward("longest", form="group", isolate=False)
def longest(rollouts: Any) -> list[float]:
    """1.0 for the longest completions of a prompt."""
    most = max(len(rollout.completion) for rollout in rollouts)
    return [float(len(rollout.completion) == most) for rollout in rollouts]


def written(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_every_kind_of_source_gives_the_same_scores(tmp_path: Path) -> None:
    import pandas

    rollouts = [Rollout(columns={"reference": "4"}, **{**row, "prompt": ()}) for row in ROWS]
    tables = [pandas.DataFrame(ROWS), pa.Table.from_pylist(ROWS), iter(ROWS)]
    for source in (ROWS, rollouts, *tables):
        scores = lab.score(source, "exact")
        assert scores.rewards == EXACT
        assert [row.rollout.id for row in scores] == [row["id"] for row in ROWS]
    path = written(tmp_path)
    for files in (path, str(path), [path], tmp_path):  # group by group
        found = {row.rollout.id: row.reward for row in lab.score(files, "exact")}
        assert found == {"a0": 1.0, "a1": 0.0, "a2": 0.0, "b0": 1.0, "b1": 0.0, "b2": 0.0}


def test_columns_by_other_names(tmp_path: Path) -> None:
    rows = [{"completion": "4", "extra": {"gold": "4"}}, {"completion": "5", "extra": {"gold": "4"}}]
    names = {"reference": "extra.gold"}
    assert lab.score(rows, "exact", renames=names).rewards == [1.0, 0.0]
    assert lab.attack("exact", rows, renames=names, families=["echo"]).exploit_rate == 0.0
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sorted(lab.score(path, "exact", renames=names).rewards) == [0.0, 1.0]


def test_polars_is_read_and_written() -> None:
    polars = pytest.importorskip("polars")
    scores = lab.score(polars.DataFrame(ROWS), "exact")
    assert scores.to_polars()["reward"].to_list() == EXACT


def test_a_missing_cell_of_a_table_is_no_value() -> None:
    import pandas

    table = pandas.DataFrame([{"completion": "4", "reference": "4"}, {"completion": "5"}])
    scores = lab.score(table, "exact")
    assert scores.rewards == [1.0, None]
    assert scores[1].components["exact"].score.reason == "the rollout has no reference"


def test_samples_of_a_prompt_are_compared_wherever_they_stand() -> None:
    scores = lab.score(ROWS, longest)
    assert scores.rewards == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    # rewards 0, 0, 1: mean 1/3, deviation sqrt(2)/3
    assert scores.advantages == pytest.approx([-(0.5**0.5)] * 4 + [2**0.5] * 2, abs=1e-5)
    steps = [{**row, "step": at // 2} for at, row in enumerate(ROWS)]  # one sample per prompt and step
    assert lab.score(steps, longest).rewards == [1.0] * 6


@pytest.mark.parametrize(
    ("rewards", "names"),
    [
        ("exact", ["exact"]),
        (["exact", longest], ["exact", "longest"]),
        (lambda rollout: 1.0, ["reward"]),
        ({"a": "exact", "b": lambda rollout: None, "c": {"use": longest, "weight": 0.5}}, ["a", "b", "c"]),
        ({"rewards": {"a": {"use": "exact"}}, "scoring": {"on_error": "zero"}}, ["a"]),
        (RewardsConfig.model_validate({"rewards": {"x": {"use": "exact"}}}), ["x"]),
        ({"g": {"combine": "product", "rewards": {"a": "exact", "b": longest}}}, ["g/a", "g/b", "g"]),
    ],
)
def test_rewards_of_every_kind(rewards: Any, names: list[str]) -> None:
    assert list(lab.score(ROWS, rewards).summary.components) == names


def test_a_config_file_and_gates_between_functions(tmp_path: Path) -> None:
    path = tmp_path / "rewards.yaml"
    path.write_text("rewards: {correct: {use: exact, weight: 2.0}}\n")
    assert (
        lab.score(ROWS, path).rewards == lab.score(ROWS, str(path)).rewards == [2 * value for value in EXACT]
    )
    gated = {"right": lambda r: r.completion == "4", "short": {"use": longest, "when": "right > 0"}}
    outcomes = [row.components["short"].score.outcome.value for row in lab.score(ROWS, gated)]
    assert outcomes == ["ok", "ok", *["abstain"] * 4]


def test_a_function_that_fails_says_why() -> None:
    scores = lab.score(ROWS, {"mine": lambda rollout: rollout.columns["gold"]})
    assert scores.rewards == [None] * 6
    [why] = scores.summary.components["mine"].why
    assert (why.count, why.outcome, why.id) == (6, "error", "a0")
    assert why.where.startswith(__file__)
    assert "KeyError" in scores._repr_html_()


@pytest.mark.parametrize(
    ("source", "rewards", "error", "text"),
    [
        ([], "exact", DataError, "the source is empty"),
        (7, "exact", DataError, "cannot read rollouts from int"),
        ([{"prompt": "a"}], "exact", DataError, "row"),
        ([Rollout(completion=""), 7], "exact", DataError, "row 2: expected a rollout or a row, got int"),
        ([Rollout(completion=""), {"completion": ""}], "exact", DataError, "mixed"),
        ("absent.jsonl", "exact", DataError, "absent.jsonl"),
        (ROWS, [], ConfigError, "at least one reward"),
        (ROWS, 7, ConfigError, "expected a name, a function or a dict, got int"),
        (ROWS, [longest, longest], ConfigError, "two are called 'longest'"),
        (ROWS, "exakt", PluginError, "no reward 'exakt': did you mean 'exact'"),
        (ROWS, lambda: 1.0, PluginError, "the signature is"),
    ],
)
def test_mistakes(source: Any, rewards: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        lab.score(source, rewards)


def test_the_table_has_a_column_per_component_and_knows_metrics() -> None:
    scores = lab.score(ROWS, {"reward": "exact", "size": {"use": lambda r: len(r.completion), "weight": 0.0}})
    table = scores.to_pandas()
    assert list(table["reward"]) == list(table["reward.value"]) == EXACT
    assert list(table["size"]) == [1, 1, 1, 1, 2, 2]
    assert list(table["size.outcome"]) == ["ok"] * 6
    assert scores.to_arrow().column("reward").to_pylist() == EXACT
    assert scores.metrics["reward/mean"] == pytest.approx(1 / 3)
    assert scores.metrics["reward/size/mean"] == pytest.approx(8 / 6)
    assert repr(scores) == "<Scores of 6 rollouts by reward, size: mean reward 0.3333>"


def test_html_escapes_what_models_write() -> None:
    scores = lab.score([{"completion": "<script>", "reference": "4"}], "exact")
    assert "&lt;script&gt;" in scores._repr_html_()
    assert "<script>" not in scores._repr_html_()


def test_scores_written_and_scored_again_are_the_same(tmp_path: Path) -> None:
    scores = lab.score(ROWS, "exact")
    scores.write(tmp_path / "scored.parquet")
    again = lab.score(tmp_path / "scored.parquet", "exact")
    assert again.rewards == [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]  # group by group
    report = lab.diff(tmp_path / "scored.parquet", "recorded", "exact")
    assert (report.num_flips, report.grpo.num_groups) == (0, 2)


def test_diff_check_and_attack() -> None:
    report = lab.diff(ROWS, "exact", {"exact": lambda rollout: "4" in rollout.completion})
    assert (report.components["exact"].flips_up, report.components["exact"].flips_down) == (2, 0)
    assert report.grpo.num_groups == 2
    assert report.grpo.advantages_changing_sign == 2  # of "44" in each group: -0.71 before, 0.71 after
    assert "0 to 1" in report._repr_html_()
    checked = lab.check([{**row, "ok": row["completion"] == "4"} for row in ROWS], "exact", label="ok")
    assert not checked.failed
    assert checked.num_groups == 2
    assert "determinism" in checked._repr_html_()
    assert lab.check(ROWS, lambda rollout: Score(1.0)).failed
    assert lab.attack(lambda rollout: 1.0).exploit_rate == 1.0
    found = lab.attack("exact", ROWS, num_rows=1, families=["hedging"])
    assert (found.num_rows, found.exploit_rate) == (1, 0.0)
    assert "hedging" in found._repr_html_()
