"""Every command of the lab on a shuffled file; outputs that would replace something; unreadable files."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.cli import main
from verl_lite.plugins.records import read_records

Result = tuple[int, Any, str]
Run = Callable[..., Result]

GROUP_REWARD = """
from verl_lite.plugins import reward

@reward("best", form="group", isolate=False)
def best(rollouts):
    longest = max(len(r.completion) for r in rollouts)
    assert len(rollouts) == 4
    return [float(len(r.completion) == longest) for r in rollouts]
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command in `tmp_path`: (exit code, its JSON or text, what it said on stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["verl-lite", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        text: Any = json.loads(printed.out) if "--json" in arguments and printed.out else printed.out
        return int(ended.value.code or 0), text, printed.err

    return run


@pytest.fixture
def files(tmp_path: Path) -> None:
    """ordered.jsonl and shuffled.jsonl, of 20 groups of four; two configs, a group and a process reward."""
    rows = [
        {
            "id": f"r{g}-{s}",
            "group": f"g{g}",
            "prompt": f"{g}+1=",
            "completion": f"\\boxed{{{g + 1 + (g + s) % 3}}}" + "!" * ((g * s) % 5),
            "reference": str(g + 1),
            "is_correct": (g + s) % 3 == 0,
        }
        for g in range(20)
        for s in range(4)
    ]
    mixed = list(rows)
    random.Random(1).shuffle(mixed)
    for name, content in (("ordered", rows), ("shuffled", mixed)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    (tmp_path / "best.py").write_text(GROUP_REWARD)
    (tmp_path / "old.yaml").write_text("rewards:\n  correct: {use: math}\n")
    (tmp_path / "new.yaml").write_text(
        "rewards:\n"
        "  correct: {use: math}\n"
        "  best: {use: './best.py:best', weight: 3.0}\n"
        "  brevity: {use: length, weight: 0.5, options: {unit: words, target: 1}}\n"
    )


@pytest.mark.usefixtures("files")
def test_score_diff_and_check_of_a_shuffled_file_are_those_of_the_ordered_one(run: Run) -> None:
    found = {}
    for name in ("ordered", "shuffled"):
        code, summary, error = run(
            "score", f"{name}.jsonl", "-c", "new.yaml", "--no-cache", "-o", f"{name}.parquet", "--json"
        )
        assert (code, error) == (0, "")
        records = {r.rollout.id: r for r in read_records(f"{name}.parquet")}
        scores = {
            identity: (r.reward, r.advantage, {n: c.value for n, c in r.components.items()})
            for identity, r in records.items()
        }
        code, report, _ = run(
            "diff", f"{name}.jsonl", "-a", "old.yaml", "-b", "new.yaml", "--no-cache", "--json"
        )
        assert code == 0
        recorded = run("diff", f"{name}.parquet", "-a", "recorded", "-b", "new.yaml", "--no-cache", "--json")
        assert recorded[1]["grpo"]["groups_changed"] == 0
        _, checked, _ = run("check", f"{name}.jsonl", "-c", "new.yaml", "--label", "is_correct", "--json")
        levels = {f["check"]: (f["level"], f["message"]) for f in checked["findings"]}
        found[name] = (
            summary["components"]["best"]["mean"],
            scores,
            report["grpo"],
            (checked["num_groups"], checked["num_rows"]),
            {check: levels[check] for check in ("determinism", "group variance", "overturned order")},
        )
    assert found["ordered"][0] == found["shuffled"][0]
    assert found["ordered"][1] == found["shuffled"][1]
    ordered, shuffled = found["ordered"][2], found["shuffled"][2]
    assert ordered["advantages_changing_sign"] == shuffled["advantages_changing_sign"] > 0
    assert ordered == pytest.approx(shuffled)
    assert found["ordered"][3] == found["shuffled"][3] == (20, 80)
    assert found["ordered"][4] == found["shuffled"][4]
    assert found["shuffled"][4]["determinism"][0] == "ok"


@pytest.mark.usefixtures("files")
def test_attack_and_report_of_a_shuffled_file(run: Run) -> None:
    for name in ("ordered", "shuffled"):
        _, attacked, _ = run("attack", f"{name}.jsonl", "-c", "old.yaml", "--num-rows", "30", "--json")
        assert attacked["num_rows"] == 20  # prompts, each once
        code, said, _ = run("report", f"{name}.jsonl", "-c", "new.yaml", "--no-cache", "-o", f"{name}.html")
        assert (code, "80 rollouts" in said) == (0, True)


@pytest.mark.usefixtures("files")
def test_several_files_globs_and_stdin(run: Run, tmp_path: Path) -> None:
    lines = (tmp_path / "shuffled.jsonl").read_text().splitlines(keepends=True)
    for part in range(3):
        (tmp_path / f"part{part}.jsonl").write_text("".join(lines[part::3]))
    for sources in (["part0.jsonl", "part1.jsonl", "part2.jsonl"], ["part*.jsonl"]):
        code, summary, _ = run("score", *sources, "-c", "new.yaml", "--no-cache", "--json")
        assert (code, summary["num_rows"], summary["num_dropped"]) == (0, 80, 0)


@pytest.mark.usefixtures("files")
def test_outputs_that_would_replace_something_need_overwrite(run: Run, tmp_path: Path) -> None:
    before = (tmp_path / "ordered.jsonl").read_bytes()
    for sources in (
        ["ordered.jsonl"],
        ["ord*.jsonl"],
        [str(tmp_path / "ordered.jsonl"), "shuffled.jsonl"],
        ["."],
    ):
        code, _, error = run("score", *sources, "-c", "old.yaml", "-o", "ordered.jsonl")
        assert (code, "--overwrite" in error) == (2, True)
    os.link("ordered.jsonl", "hard.html")
    code, _, error = run("report", "ordered.jsonl", "-o", "hard.html")
    assert (code, "is an input too" in error) == (2, True)
    assert (tmp_path / "ordered.jsonl").read_bytes() == before
    assert run("score", "shuffled.jsonl", "-c", "old.yaml", "-o", "scored.parquet")[0] == 0
    code, _, error = run("score", "ordered.jsonl", "-c", "old.yaml", "-o", "scored.parquet")
    assert (code, "scored.parquet exists" in error) == (2, True)
    assert run("score", "ordered.jsonl", "-c", "old.yaml", "-o", "scored.parquet", "--overwrite")[0] == 0
    assert run("score", "ordered.jsonl", "-c", "old.yaml", "-o", "ordered.jsonl", "--overwrite")[0] == 0
    assert len(list(read_records(tmp_path / "ordered.jsonl"))) == 80


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("best.py/x.parquet", "cannot be written: File exists"),
        ("/proc/self/x.parquet", "cannot be written"),
        (".", "records go to"),
        ("x.txt", "records go to a .parquet or .jsonl file"),
    ],
)
def test_an_unwritable_output_is_found_before_scoring(
    run: Run, tmp_path: Path, output: str, message: str
) -> None:
    (tmp_path / "stop.py").write_text(
        "from verl_lite.plugins import reward\n@reward('stop')\ndef stop(rollout):\n    open('ran', 'w')\n"
    )
    (tmp_path / "stop.yaml").write_text("rewards:\n  stop: {use: './stop.py:stop'}\n")
    code, _, error = run("score", "ordered.jsonl", "-c", "stop.yaml", "-o", output, "--debug-inline")
    assert (code, message in error) == (2, True)
    assert not (tmp_path / "ran").exists()


def test_a_file_of_which_nothing_can_be_read_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("rewards:\n  correct: {use: math}\n")
    (tmp_path / "bad.jsonl").write_text('{"completion": "a", "prompt": 1}\n{oops\n')
    code, _, error = run("score", "bad.jsonl", "-c", "old.yaml", "-o", "out.parquet", "--no-cache")
    assert code == 2
    assert "none of the 2 rows could be read; the first, row 1: 'prompt' must be text" in error
    assert not (tmp_path / "out.parquet").exists()


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    """Rows whose columns have other names, the reference inside text as data sets store it."""
    rows = [
        {
            "question": f"{g}+1=",
            "response": str(g + 1 + s),
            "reward_model": json.dumps({"ground_truth": str(g + 1)}),
        }
        for g in range(3)
        for s in range(2)
    ]
    path = tmp_path / "nested.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "plain.yaml").write_text("rewards:\n  correct: {use: exact}\n")
    (tmp_path / "mapped.yaml").write_text(
        "rewards:\n  correct: {use: exact}\n"
        "map: {reference: reward_model.ground_truth, completion: response, prompt: question}\n"
    )
    return path


@pytest.mark.usefixtures("nested")
def test_map_on_the_command_line_and_in_the_config(run: Run) -> None:
    code, _, error = run("score", "nested.jsonl", "-c", "plain.yaml", "--no-cache")
    assert (code, "keys are: question, response, reward_model" in error) == (2, True)
    maps = ["--map", "completion=response", "--map", "prompt=question"]
    code, text, _ = run("score", "nested.jsonl", "-c", "plain.yaml", "--no-cache", *maps)
    assert code == 1  # nothing was scored
    assert "abstained on every row: correct; the columns are: question, response, reward_model" in text
    maps += ["--map", "reference=reward_model.ground_truth"]
    by_option = run("score", "nested.jsonl", "-c", "plain.yaml", "--no-cache", "--json", *maps)[1]
    by_config = run("score", "nested.jsonl", "-c", "mapped.yaml", "--no-cache", "--json")[1]
    for summary in (by_option, by_config):
        assert summary["components"]["correct"]["mean"] == 0.5
        assert summary["schema_version"] == 2
    _, checked, _ = run("check", "nested.jsonl", "-c", "mapped.yaml", "--json")
    assert (checked["num_groups"], checked["schema_version"]) == (3, 2)
    code, _, error = run("score", "nested.jsonl", "-c", "plain.yaml", "--map", "reference")
    assert (code, "expected NEW=OLD" in error) == (2, True)
