"""Measures against hand-counted answers, paired tests, and the whole evaluation of a very small model."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from verl_lite.cli import main
from verl_lite.engine.data import read_prompts
from verl_lite.engine.evals import (
    EvalConfig,
    Measure,
    PromptResult,
    compare_results,
    evaluate_model,
    load_eval_config,
    majority_share,
    measure_greedy,
    measure_samples,
    read_result,
)
from verl_lite.engine.model import ChatTemplate
from verl_lite.errors import ConfigError, DataError
from verl_lite.lab import mcnemar_exact, mean_interval, pass_at_k, wilson_interval
from verl_lite.plugins import ComponentScore, Rollout, Score, ScoredRollout, ScoreOutcome
from verl_lite.plugins.records import read_records

EXAMPLES = Path(__file__).parents[4] / "examples"
CONFIG: dict[str, Any] = {
    "datasets": {"sums": {"task": "arithmetic", "split": "held_out", "num_rows": 6}},
    "rewards": {
        "correct": {"use": "math"},
        "format": {"use": "format", "options": {"pattern": "think_boxed"}},
    },
    "format": "format",
    "rollout": {"sampler": "transformers", "max_prompt_tokens": 32, "max_new_tokens": 12},
}


def config(**changes: Any) -> EvalConfig:
    return EvalConfig(**{**CONFIG, **changes})


def scored(
    group: str, value: float | None, answer: str | None = None, *, tokens: int = 3, form: float = 1.0
) -> ScoredRollout:
    details = {"extracted": answer}
    score = Score(value, details=details) if value is not None else Score.failed(ScoreOutcome.TIMEOUT, "")
    return ScoredRollout(
        rollout=Rollout(completion="", group=group, completion_ids=[1] * tokens),
        components={
            "correct": ComponentScore(score=score, weight=1.0, contribution=value),
            "format": ComponentScore(score=Score(form), weight=1.0, contribution=form),
        },
        reward=value,
    )


def named(measures: list[Measure]) -> dict[str, Measure]:
    return {measure.name: measure for measure in measures}


def test_greedy_measures_by_hand() -> None:
    rows = [
        scored("a", 1.0, tokens=2),
        scored("b", 0.0, form=0.5, tokens=4),
        scored("c", None),
        scored("d", 1.0),
    ]
    measures, right = measure_greedy(rows, config())
    found = named(measures)
    assert right == {"a": True, "b": False, "c": False, "d": True}
    accuracy = found["greedy accuracy"]
    assert (accuracy.value, accuracy.count) == (0.5, 4)
    assert (accuracy.low, accuracy.high) == wilson_interval(2, 4)
    assert found["greedy format"].value == 0.75
    assert found["greedy length (tokens)"].value == 3.0
    assert found["greedy unscored"].value == 0.25  # a time-out is no wrong answer, and is seen
    assert found["greedy reward"].value == pytest.approx(2 / 3)


def test_sampled_measures_by_hand() -> None:
    """a: 1 of 4 right, the majority wrong; b: 3 of 4 right, the majority right."""
    groups = {
        "a": [scored("a", v, x) for v, x in [(1.0, "7"), (0.0, "8"), (0.0, " 8"), (0.0, "9")]],
        "b": [scored("b", v, x) for v, x in [(1.0, "5"), (1.0, "5"), (1.0, "5.0"), (0.0, "6")]],
    }
    measures, right = measure_samples(groups, config())
    found = named(measures)
    assert right == {"a": 1, "b": 3}
    assert found["avg@4"].value == 0.5
    assert found["pass@1"].value == 0.5
    assert found["pass@2"].value == (1 - 3 / 6 + 1 - 0 / 6) / 2
    assert found["pass@4"].value == 1.0
    assert found["maj@4"].value == 0.5
    assert [name for name in found if name.startswith("pass@")] == ["pass@1", "pass@2", "pass@4"]


def test_tied_majorities_share_and_samples_without_an_answer_do_not_vote() -> None:
    tied = [scored("a", 1.0, "7"), scored("a", 0.0, "8"), scored("a", 0.0, None), scored("a", 0.0, None)]
    assert majority_share(tied, config()) == 0.5
    assert majority_share([scored("a", 0.0, None)], config()) == 0.0
    assert majority_share(tied, config(answer_key="nothing")) is None


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one() -> None:
    from itertools import combinations

    for total, right, k in [(5, 2, 3), (6, 1, 2), (4, 0, 4), (8, 8, 1)]:
        flags = [True] * right + [False] * (total - right)
        subsets = list(combinations(flags, k))
        assert pass_at_k(total, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    with pytest.raises(ValueError, match="pass@3 needs at least 3 samples, got 2"):
        pass_at_k(2, 1, 3)


def test_mcnemar_by_hand() -> None:
    """1 against 5: 2 * (1 + 6) / 2^6."""
    assert mcnemar_exact(1, 5) == mcnemar_exact(5, 1) == 14 / 64
    assert mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(0, 0) == 1.0


def test_the_bootstrap_interval_is_near_the_normal_one() -> None:
    values = [0.0] * 60 + [1.0] * 40
    low, high = mean_interval(values)
    spread = 1.96 * math.sqrt(0.4 * 0.6 / 100)
    assert low == pytest.approx(0.4 - spread, abs=0.02)
    assert high == pytest.approx(0.4 + spread, abs=0.02)
    assert mean_interval(values) == (low, high)


def test_comparisons_pair_prompts() -> None:
    def results(greedy: str, right: list[int]) -> dict[str, PromptResult]:
        return {
            str(at): PromptResult(greedy=flag == "1", num_right=found, num_samples=4)
            for at, (flag, found) in enumerate(zip(greedy, right, strict=True))
        }

    first, second = results("0000000110", [0] * 10), results("1111110110", [2] * 10)
    greedy, sampled = compare_results(first, second)
    assert (greedy.first, greedy.second, greedy.only_first, greedy.only_second) == (0.2, 0.8, 0, 6)
    assert greedy.p_value == 2 / 2**6
    assert greedy.is_significant
    assert (sampled.difference, sampled.low, sampled.high) == (0.5, 0.5, 0.5)
    assert sampled.is_significant
    same, _ = compare_results(first, first)
    assert (same.p_value, same.is_significant) == (1.0, False)
    with pytest.raises(DataError, match="of different prompts"):
        compare_results(first, {"0": first["0"]})


def test_a_model_is_measured_and_its_samples_are_records(
    small_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    checked = config(num_samples=4, perplexity="answer")
    result = evaluate_model(checked, str(small_model), out_dir=tmp_path / "out", debug_inline=True)
    found = named(list(result.datasets["sums"].measures))
    assert found["greedy accuracy"].count == 6
    assert {"avg@4", "pass@4", "maj@4", "sampled format", "perplexity"} <= found.keys()
    assert read_result(tmp_path / "out") == result
    greedy = list(read_records(tmp_path / "out" / "sums_greedy.parquet"))
    samples = list(read_records(tmp_path / "out" / "sums_samples.parquet"))
    assert (len(greedy), len(samples)) == (6, 24)
    assert greedy[0].rollout.sampling.temperature == 0.0
    assert set(greedy[0].components) == {"correct", "format"}
    # perplexity again, by transformers' own loss, weighted by tokens
    model = AutoModelForCausalLM.from_pretrained(small_model)
    total, count = 0.0, 0
    for prompt in read_prompts(
        checked.datasets["sums"], ChatTemplate(tokenizer), max_prompt_tokens=32, seed=0
    ):
        answer = [*tokenizer.encode(prompt.columns["answer"]), tokenizer.eos_token_id]
        ids = torch.tensor([[*prompt.prompt_ids, *answer]])
        labels = torch.tensor([[-100] * len(prompt.prompt_ids) + answer])
        total += model(input_ids=ids, labels=labels).loss.item() * len(answer)
        count += len(answer)
    assert found["perplexity"].value == pytest.approx(math.exp(total / count), rel=1e-4)
    with pytest.raises(ConfigError, match="already holds the results"):
        evaluate_model(checked, str(small_model), out_dir=tmp_path / "out")


def test_the_command_compares_a_model_with_kept_results(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text(yaml.safe_dump(CONFIG))

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["verl-lite", "eval", str(path), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    model, kept = str(small_model), str(tmp_path / "kept")
    table = call("--model", model, "--out", kept, "--debug-inline")
    assert "greedy accuracy" in table
    data = json.loads(call("--model", model, "--compare", kept, "--debug-inline", "--json"))
    (greedy,) = data["comparison"]["sums"]
    assert (greedy["difference"], greedy["p_value"], greedy["is_significant"]) == (0.0, 1.0, False)
    assert data["compared_with"] == model


@pytest.mark.parametrize("name", ["gsm8k", "math500", "humaneval", "mbpp"])
def test_the_ready_configs_are_valid(name: str) -> None:
    assert load_eval_config(EXAMPLES / f"eval_{name}.yaml", []).datasets


def test_mistakes_in_the_config(tmp_path: Path) -> None:
    def refused(**changes: Any) -> str:
        path = tmp_path / "eval.yaml"
        path.write_text(yaml.safe_dump({**CONFIG, **changes}))
        with pytest.raises(ConfigError) as error:
            load_eval_config(path, [])
        return str(error.value)

    assert "accuracy='corect' is not a reward of this config: correct, format" in refused(accuracy="corect")
    assert "leave nothing to measure" in refused(greedy=False)
    assert "becomes a file name" in refused(datasets={"a/b": {"task": "arithmetic"}})


def test_a_training_config_takes_the_keys_of_both() -> None:
    path = EXAMPLES / "quickstart.yaml"
    checked = load_eval_config(path, ["num_samples=4", "greedy=false", "rollout.temperature=0.5", "seed=3"])
    assert (checked.num_samples, checked.greedy, checked.rollout.temperature, checked.seed) == (
        4,
        False,
        0.5,
        3,
    )
    assert checked.accuracy == "correct"
    with pytest.raises(ConfigError, match=r"num_samples.*-1"):
        load_eval_config(path, ["num_samples=-1"])
    with pytest.raises(ConfigError, match="unknown key 'num_sample'"):
        load_eval_config(path, ["num_sample=4"])
