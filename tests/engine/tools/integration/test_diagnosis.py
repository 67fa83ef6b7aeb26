"""pass@k by hand and by enumeration; each rule of the advice; a whole diagnosis of a random model."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from verl_lite.engine.config import SFTConfig, TrainConfig
from verl_lite.engine.tools import Diagnosis, diagnose, recommend, summarise
from verl_lite.errors import ConfigError
from verl_lite.lab import pass_at_k
from verl_lite.plugins import ComponentScore, Rollout, Score, ScoredRollout, Turn, validate
from verl_lite.plugins.records import read_records


@pytest.mark.parametrize(("n", "right", "k"), [(4, 1, 1), (4, 1, 2), (5, 2, 3), (6, 0, 2), (6, 5, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n: int, right: int, k: int) -> None:
    subsets = list(combinations(range(n), k))
    expected = sum(any(at < right for at in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, right, k) == pytest.approx(expected)


def scored(group: str, correct: float | None, form: float, *, reason: str = "stop") -> ScoredRollout:
    def component(value: float | None) -> ComponentScore:
        score = Score(value) if value is not None else Score.failed("error", "broken")  # type: ignore[arg-type]
        return ComponentScore(score=score, weight=1.0, contribution=value or 0.0)

    rollout = Rollout(
        completion="x", group=group, completion_ids=[1, 2], logprobs=[-1.0, -0.5], finish_reason=reason
    )
    reward = None if correct is None else correct + form
    return ScoredRollout(
        rollout=rollout, components={"correct": component(correct), "format": component(form)}, reward=reward
    )


def test_the_counts_by_hand() -> None:
    rows = [
        *(scored("mixed", float(at == 0), 1.0) for at in range(4)),
        *(scored("wrong", 0.0, 0.0, reason="length") for _ in range(4)),
        *(scored("right", 1.0, 1.0) for _ in range(3)),
        scored("right", None, 1.0),  # an error is not right, and not 0 either
    ]
    found = summarise(rows, accuracy_reward="correct", right_at=1.0, format_reward="format")
    assert (found.num_prompts, found.num_samples) == (3, 4)
    assert found.pass_at == pytest.approx({1: (1 / 4 + 0 + 3 / 4) / 3, 2: (1 / 2 + 0 + 1) / 3, 4: 2 / 3})
    assert found.format_rate == pytest.approx(8 / 12)
    assert found.no_variance == pytest.approx(1 / 3)
    assert (found.all_right, found.all_wrong) == (0.0, pytest.approx(1 / 3))
    assert found.entropy == pytest.approx(0.75)
    assert found.truncated == pytest.approx(1 / 3)


def test_the_tokens_of_an_environment_are_none_of_the_model_s() -> None:
    row = scored("one", 1.0, 1.0)
    turns = (Turn(role="assistant", content="x", end=2), Turn(role="user", content="y", start=2, end=6))
    rollout = replace(row.rollout, completion_ids=range(6), logprobs=[-1.0, -0.5, *[0.0] * 4], turns=turns)
    found = summarise(
        [replace(row, rollout=rollout)], accuracy_reward="correct", right_at=1.0, format_reward="format"
    )
    assert found.entropy == pytest.approx(0.75)
    assert found.completion_tokens_mean == 2


def diagnosis(*, form: float | None, first: float, best: float, truncated: float = 0.0) -> Diagnosis:
    return Diagnosis(
        num_prompts=10,
        num_samples=8,
        format_rate=form,
        pass_at={1: first, 8: best},
        no_variance=0.5,
        all_right=0.2,
        all_wrong=0.3,
        entropy=1.0,
        truncated=truncated,
        completion_tokens_mean=20.0,
    )


@pytest.mark.parametrize(
    ("found", "verdict", "steps"),
    [
        (diagnosis(form=0.0, first=0.0, best=0.0), "warm up", 63),  # 2,000 rows in batches of 32
        (diagnosis(form=0.475, first=0.1, best=0.4), "warm up", 32),  # half of the way: 1,000 rows
        (diagnosis(form=0.9, first=0.01, best=0.04), "too hard", 0),
        (diagnosis(form=None, first=0.0, best=0.0), "too hard", 0),
        (diagnosis(form=1.0, first=0.95, best=1.0), "too easy", 0),
        (diagnosis(form=0.9, first=0.2, best=0.6), "skip the warm-up", 0),
    ],
)
def test_each_rule(found: Diagnosis, verdict: str, steps: int) -> None:
    advice = recommend(found, SFTConfig(batch_rows=32))
    assert (advice.verdict, advice.sft_steps) == (verdict, steps)
    assert not advice.also


def test_truncation_is_said_beside_the_verdict() -> None:
    advice = recommend(diagnosis(form=0.9, first=0.2, best=0.6, truncated=0.4), SFTConfig())
    (said,) = advice.also
    assert said.startswith("40% of the completions were cut at rollout.max_new_tokens (more than 20%)")


def config_of(**changes: object) -> TrainConfig:
    small = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 128}
    tree = {
        "steps": 4,
        "model": {"tiny": {**small, "max_context_tokens": 64}},
        "data": {"train": {"task": "arithmetic", "num_rows": 12}},
        "rewards": {"format": {"use": "format", "options": {"pattern": "think_boxed"}}},
        "rollout": {
            "sampler": "transformers", "num_prompts": 4, "max_prompt_tokens": 16, "max_new_tokens": 12,
        },
        **changes,
    }  # fmt: skip
    return validate(TrainConfig, tree, source="test")


def test_a_random_model_needs_a_warm_up(tmp_path: Path) -> None:
    kept = tmp_path / "rows.parquet"
    found, advice = diagnose(config_of(), num_prompts=5, num_samples=3, records_path=kept, debug_inline=True)
    assert (found.num_prompts, found.num_samples) == (5, 3)
    assert found.format_rate == 0.0
    assert found.no_variance == 1.0
    assert found.entropy > 4.0  # 104 tokens, nearly uniform: log 104 is 4.64
    assert advice.verdict == "warm up"
    assert len(list(read_records(kept))) == 15


def test_a_config_without_rewards_cannot_be_diagnosed() -> None:
    with pytest.raises(ConfigError, match="the config has none"):
        diagnose(config_of(steps=0, rewards={}), num_prompts=2, num_samples=2)
