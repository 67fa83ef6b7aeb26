"""The reward `code`: verdicts become scores, batches are graded together, verdicts are kept."""

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from verl_lite.errors import SandboxError
from verl_lite.plugins import Rollout, ScoreOutcome, Scorer, definition_of
from verl_lite.plugins.builtin import CodeReward, CodeRewardOptions, code
from verl_lite.plugins.composite import RewardsConfig
from verl_lite.plugins.records import Record, RecordWriter, read_records
from verl_lite.sandbox import Result, Sandbox, Status

ADD = "```python\ndef add(a, b):\n    return a + b\n```"
HALF = "def add(a, b):\n    return 3\n"
COLUMNS: dict[str, Any] = {"test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]}


def rollout(completion: str, columns: dict[str, Any] | None = None, **fields: Any) -> Rollout:
    return Rollout(completion=completion, columns=COLUMNS if columns is None else columns, **fields)


@pytest.fixture
def reward() -> Iterator[CodeReward]:
    made = CodeReward(CodeRewardOptions(timeout_s=3.0))
    yield made
    made.close()


def test_its_declaration() -> None:
    definition = definition_of(CodeReward)
    assert (definition.name, definition.form, definition.isolate) == ("code", "batch", False)
    assert definition.options_model is CodeRewardOptions


def test_each_outcome_has_its_score(reward: CodeReward) -> None:
    scores = reward(
        [
            rollout(ADD),
            rollout(HALF),
            rollout(""),
            rollout(ADD, {"test_list": []}),
            rollout(ADD, {"question": "?"}),
            rollout("def add(a, b):\n    while True: pass"),
            rollout(ADD, {}, reference=json.dumps({"fn_name": "add", "inputs": [[1, 1]], "outputs": [2]})),
        ]
    )
    assert [score.value for score in scores] == [1.0, 0.0, 0.0, None, None, 0.0, 1.0]
    ok, abstain = ScoreOutcome.OK, ScoreOutcome.ABSTAIN
    assert [score.outcome for score in scores] == [ok, ok, ok, abstain, abstain, ok, ok]
    assert [score.details["verdict"] for score in scores] == [
        "correct", "wrong", "unparsed", "bad_reference", "bad_reference", "wrong", "correct",
    ]  # fmt: skip
    assert scores[1].reason == "1 of 2 tests passed; test 2: returned 3, expected 4"
    assert [row["status"] for row in scores[1].details["tests"]] == ["passed", "failed"]
    assert "no tests" in scores[3].reason
    assert "timed out" in scores[5].reason


def test_partial_credit_is_an_option() -> None:
    reward = CodeReward(CodeRewardOptions(credit="fraction"))
    scores = reward([rollout(HALF), rollout(ADD), rollout("def add(a, b): return 0")])
    reward.close()
    assert [score.value for score in scores] == [0.5, 1.0, 0.0]
    assert [row["status"] for row in scores[2].details["tests"]] == ["failed", "failed"]


def test_a_hanging_program_is_given_up_after_some_time_outs() -> None:
    reward = CodeReward(CodeRewardOptions(credit="fraction", timeout_s=0.7, max_timeouts=2))
    program = "def add(a, b):\n    while a == b: pass\n    return a + b\n"
    lines = [f"assert add({a}, {b}) == {a + b}" for a, b in [(0, 1), (1, 1), (2, 2), (0, 3), (0, 4)]]
    (score,) = reward([rollout(program, {"test_list": lines})])
    reward.close()
    rows = [row["status"] for row in score.details["tests"]]
    assert rows == ["passed", "failed", "failed", "not_run", "not_run"]
    assert (score.value, score.details["timed_out"]) == (0.2, 2)


def test_the_first_failure_ends_a_program_where_all_tests_must_pass(reward: CodeReward) -> None:
    columns = {"test_list": ["assert add(1, 2) == 4", *COLUMNS["test_list"]]}
    (score,) = reward([rollout(ADD, columns)])
    assert [row["status"] for row in score.details["tests"]] == ["failed", "not_run", "not_run"]


def test_unusable_tests_are_an_error_where_asked() -> None:
    reward = CodeReward(CodeRewardOptions(on_bad_reference="error"))
    (score,) = reward([rollout(ADD, {"test_list": ["assert add("]})])
    assert score.outcome is ScoreOutcome.ERROR
    assert "not Python" in score.reason


def test_tests_that_trust_the_program_are_refused_unless_allowed() -> None:
    columns = {"test_list": ["assert Box(1) == Box(1)"]}
    program = "class Box:\n    def __init__(self, n): pass\n    def __eq__(self, other): return True\n"
    refused, allowed = (
        CodeReward(CodeRewardOptions(trusting_tests=policy)) for policy in ("refuse", "allow")
    )
    assert refused([rollout(program, columns)])[0].outcome is ScoreOutcome.ABSTAIN
    (score,) = allowed([rollout(program, columns)])
    allowed.close()
    refused.close()
    assert (score.value, score.details["trusting"]) == (1.0, 1)


class _CountingSandbox(Sandbox):
    runs = 0

    def submit_python(self, *args: Any, **kwargs: Any) -> Any:
        type(self).runs += 1
        return super().submit_python(*args, **kwargs)


def test_verdicts_are_kept_and_time_outs_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "Sandbox", _CountingSandbox)
    monkeypatch.setattr(_CountingSandbox, "runs", 0)
    reward = CodeReward(CodeRewardOptions(timeout_s=0.7))
    batch = [rollout(ADD), rollout("Again:\n" + ADD), rollout(ADD, {"test_list": ["assert add(0, 0) == 0"]})]
    first = reward(batch)
    assert _CountingSandbox.runs == 3  # two tests of one program, and one of another row
    assert reward(batch) == first
    assert _CountingSandbox.runs == 3
    slow = [rollout("def add(a, b):\n    while True: pass", {"test_list": ["assert add(1, 1) == 2"]})]
    reward(slow)
    reward(slow)
    reward.close()
    assert _CountingSandbox.runs == 5


def test_the_cache_is_bounded() -> None:
    reward = CodeReward(CodeRewardOptions(cache_entries=2))
    reward([rollout(f"def add(a, b): return {n}") for n in range(4)])
    reward.close()
    assert len(reward._cache) == 2


class _BrokenSandbox(Sandbox):
    def submit_python(self, *args: Any, **kwargs: Any) -> Any:
        future = super().submit_python("pass")
        future.result()
        return _Done(Result(status=Status.SANDBOX_ERROR, message="the fork server died"))


class _Done:
    def __init__(self, result: Result) -> None:
        self._result = result

    def result(self) -> Result:
        return self._result

    def add_done_callback(self, call: Any) -> None:
        call(self)


def test_a_fault_of_the_sandbox_is_an_error_and_never_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "Sandbox", _BrokenSandbox)
    reward = CodeReward(CodeRewardOptions())
    scores = reward([rollout(ADD), rollout("", COLUMNS)])
    monkeypatch.setattr(code, "Sandbox", Sandbox)
    reward.close()
    assert (scores[0].value, scores[0].outcome) == (None, ScoreOutcome.ERROR)
    assert "fork server died" in scores[0].reason
    assert scores[1].value == 0.0
    (again,) = reward([rollout(ADD)])  # and it was not kept
    reward.close()
    assert again.value == 1.0


def test_programs_see_the_packages_they_are_shown() -> None:
    packages = sysconfig.get_path("purelib")
    if Path(packages).is_relative_to("/tmp"):
        pytest.skip("a run's own /tmp hides what lies below it")
    program = "import pluggy\ndef answer(): return pluggy.__name__"
    columns = {"test_list": ["assert answer() == 'pluggy'"]}
    scores = []
    for paths in ((), (packages,)):
        reward = CodeReward(CodeRewardOptions(read_only_paths=paths))
        scores += reward([rollout(program, columns)])
        reward.close()
    assert [score.value for score in scores] == [0.0, 1.0]
    assert "ModuleNotFoundError" in scores[0].reason


def test_a_machine_that_cannot_isolate_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> Sandbox:
        raise SandboxError("user namespaces are forbidden here")

    monkeypatch.setattr(code, "Sandbox", refuse)
    with pytest.raises(SandboxError, match="forbidden"):
        CodeReward(CodeRewardOptions())([rollout(ADD)])


def test_scoring_and_scoring_again_agree() -> None:
    """The scorer of training and of offline replay runs the reward; both tell the same."""
    config = RewardsConfig.model_validate({"rewards": {"tests": {"use": "code"}}})
    batch = [rollout(text, group="g", sample_index=i) for i, text in enumerate((ADD, HALF, ""))]
    found = []
    for inline in (False, True):
        with Scorer(config, debug_inline=inline) as scorer:
            found.append(scorer.score(batch).rows)
    assert [row.reward for row in found[0]] == [1.0, 0.0, 0.0]
    first, second = ([row.components["tests"].score for row in rows] for rows in found)
    assert first == second


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_records_replay_to_equal_scores(suffix: str, tmp_path: Path) -> None:
    """Score, write records, read them, score again through the same path: values, reasons, details."""
    config = RewardsConfig.model_validate(
        {"rewards": {"tests": {"use": "code", "options": {"credit": "fraction"}}}}
    )
    completions = (ADD, HALF, "", "def add(a, b):\n    raise SystemExit(0)\n", "x\x00 caf\u00e9 \u221a2")
    batch = [rollout(text, group="g", sample_index=i) for i, text in enumerate(completions)]
    batch.append(rollout(ADD, {"test_list": []}, group="bad row", sample_index=0))
    path = tmp_path / f"records.{suffix}"
    with Scorer(config) as scorer:
        first = scorer.score(batch).rows
        with RecordWriter(path) as writer:
            writer.write(first, step=3)
        records = [record for record in read_records(path) if isinstance(record, Record)]
        assert len(records) == len(batch)
    with Scorer(config) as fresh:  # nothing kept from the first scoring
        again = fresh.score([record.rollout for record in records]).rows
    assert [row.reward for row in first] == [1.0, 0.5, 0.0, 0.0, 0.0, None]
    for row, second, record in zip(first, again, records, strict=True):
        score, stored = row.components["tests"].score, record.components["tests"]
        assert second.reward == row.reward
        assert second.components["tests"].score == score
        assert (stored.value, stored.outcome, stored.reason) == (score.value, score.outcome, score.reason)


def test_the_sandboxs_version_is_part_of_what_is_kept(
    reward: CodeReward, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    grade = code.verify_programs

    def counting(submissions: Any, **options: Any) -> Any:
        asked.append(len(submissions))
        return grade(submissions, **options)

    monkeypatch.setattr(code, "verify_programs", counting)
    for version in (1, 1, 2):
        monkeypatch.setattr(code, "SANDBOX_VERSION", version)
        assert [score.value for score in reward([rollout(ADD)])] == [1.0]
    assert asked == [1, 1]


def test_scores_can_be_written_to_a_record(reward: CodeReward) -> None:
    for score in reward([rollout(ADD), rollout(HALF), rollout("")]):
        assert json.loads(json.dumps(score.details)) == score.details


@pytest.mark.parametrize("bad", [{"credit": "half"}, {"timeout_s": 0}, {"timeot_s": 1}, {"workers": 0}])
def test_bad_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CodeRewardOptions(**bad)


def test_importing_it_is_cheap() -> None:
    import subprocess
    import sys

    program = (
        "import sys, verl_lite.verifiers, verl_lite.plugins.builtin.code\n"
        "print(sorted({'torch', 'sympy', 'vllm', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
