"""The `rewards:` and `scoring:` sections: every mistake is named before anything loads."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from verl_lite.errors import ConfigError
from verl_lite.plugins import RewardsConfig, load_rewards_config, validate
from verl_lite.plugins.composite import GroupConfig, leaves

FULL = """
rewards:
  correct: {use: math, on_timeout: drop}
  format: {use: format, weight: {linear: {0: 1.0, 100: 0.0}}, options: {pattern: think_boxed}}
  style:
    combine: product
    weight: 0.5
    when: correct > 0
    rewards:
      brevity: {use: length, clip: [null, 1.0], scale: 2.0, offset: -1.0}
      tidy: {use: ./tidy.py:tidy, sources: [gsm8k, math], timeout_s: 2}
scoring: {combine: gdpo, on_error: abort, max_error_fraction: 0.1}
"""


def test_the_whole_of_it(tmp_path: Path) -> None:
    path = tmp_path / "rewards.yaml"
    path.write_text(FULL)
    config = load_rewards_config(path, ["rewards.style.rewards.brevity.scale=3", "scoring.combine=sum"])
    style = config.rewards["style"]
    assert isinstance(style, GroupConfig)
    assert config.scoring.combine == "sum"
    assert [leaf.path for leaf in leaves(config.rewards)] == [
        "correct",
        "format",
        "style/brevity",
        "style/tidy",
    ]
    brevity = leaves(config.rewards)[2]
    assert brevity.config.scale == 3
    assert [gate.text for gate in brevity.gates] == ["correct > 0"]  # the group's gate is its own
    assert RewardsConfig.model_validate(config.model_dump()) == config
    assert RewardsConfig.model_json_schema()["properties"]["rewards"]


def check(rewards: object, scoring: object = None) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(RewardsConfig, {"rewards": rewards, "scoring": scoring or {}}, source="rewards.yaml")
    return str(caught.value)


A = {"use": "exact"}


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ({}, "rewards: dictionary should have at least 1 item"),
        ([], "rewards: input should be a valid dictionary"),
        ({"a": {}}, "'rewards.a.use' is missing"),
        ({"a": {"use": ""}}, "rewards.a.use: string should have at least 1 character"),
        ({"a": 1.0}, "rewards.a: input should be a valid dictionary"),
        ({"a": {**A, "wieght": 1}}, "unknown key 'rewards.a.wieght': did you mean 'weight'?"),
        ({"g": {"rewards": {}}}, "rewards.g.rewards: dictionary should have at least 1 item"),
        (
            {"g": {"rewards": {"a": {**A, "uses": 1}}}},
            "unknown key 'rewards.g.rewards.a.uses': did you mean 'use'?",
        ),
        ({"g": {"rewards": {"a": A}, "options": {}}}, "unknown key 'rewards.g.options'"),
        (
            {"g": {"rewards": {"a": A}, "combine": "gdpo"}},
            "rewards.g.combine: input should be 'sum' or 'product'",
        ),
        ({"a": {**A, "weight": "much"}}, "rewards.a.weight: input should be a valid number"),
        ({"a": {**A, "weight": {"linear": {}}}}, "rewards.a.weight: linear: expected at least one point"),
        ({"a": {**A, "weight": {"cosine": 1}}}, "unknown key 'rewards.a.weight.cosine'"),
        ({"a": {**A, "weight": float("nan")}}, "rewards.a.weight: input should be a finite number"),
        ({"a": {**A, "clip": [1, 0]}}, "rewards.a: clip=[1, 0]: the lower bound is above the upper one"),
        ({"a": {**A, "clip": [1]}}, "'rewards.a.clip.1' is missing"),
        ({"a": {**A, 7: 1}}, "rewards.a.7: keys should be strings"),
        ({7: A}, "rewards.7: input should be a valid string"),
        ({"a": {**A, "timeout_s": 0}}, "rewards.a.timeout_s: input should be greater than 0"),
        ({"a": {**A, "on_error": "skip"}}, "rewards.a.on_error: input should be 'drop', 'zero' or 'abort'"),
        ({"a": {**A, "when": "b > 0"}, "bb": A}, "rewards.a.when: unknown reward 'b': did you mean 'bb'?"),
        (
            {"a": {**A, "when": "q > 0"}, "xyz": A},
            "rewards.a.when: unknown reward 'q': the rewards are: a, xyz",
        ),
        ({"a": {**A, "when": "import os"}}, "rewards.a: when: 'import os' is not a condition"),
        ({"a": {**A, "when": "a > 0"}}, "these gates wait for each other: a -> a"),
        (
            {"a": {**A, "when": "b > 0"}, "b": {**A, "when": "c > 0"}, "c": {**A, "when": "a > 0"}},
            "these gates wait for each other: a -> b -> c -> a",
        ),
        ({"g": {"when": "a > 0", "rewards": {"a": A}}}, "these gates wait for each other: a -> a"),
        ({"g": {"rewards": {"a": A}}, "a": A}, "'a' names two rewards (g/a and a)"),
        ({"a": {**A, "when": "g > 0"}, "g": {"rewards": {"b": A}}}, "unknown reward 'g'"),
        ({"max": A}, "the name 'max' cannot be used"),
        ({"two words": A}, "the name 'two words' cannot be used"),
        ({"and": A}, "the name 'and' cannot be used"),
        ({"a/b": A}, "the name 'a/b' cannot be used"),
        ({"": A}, "the name '' cannot be used"),
    ],
)
def test_mistakes_in_rewards(rewards: object, message: str) -> None:
    assert message in check(rewards)


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ({"combine": "mean"}, "scoring.combine: input should be 'sum', 'product' or 'gdpo'"),
        ({"on_eror": "drop"}, "unknown key 'scoring.on_eror': did you mean 'on_error'?"),
        ({"on_error": "skip"}, "scoring.on_error: input should be 'drop', 'zero' or 'abort'"),
        ({"max_error_fraction": 1.5}, "scoring.max_error_fraction: input should be less than or equal to 1"),
        ({"breaker_min_rows": 0}, "scoring.breaker_min_rows: input should be greater than 0"),
    ],
)
def test_mistakes_in_scoring(scoring: object, message: str) -> None:
    assert message in check({"a": A}, scoring)


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.sampled_from(["", "a", "a > 0", "exact", "sum"]),
)
keys = st.sampled_from(
    [
        *"abc",
        "use",
        "weight",
        "when",
        "clip",
        "rewards",
        "combine",
        "linear",
        "options",
        "sources",
        0,
        7,
        None,
        True,
    ]
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
parts = st.fixed_dictionaries(
    {"use": st.just("exact")}, optional={"when": trees, "weight": trees, "clip": trees}
)


@given(st.one_of(trees, st.dictionaries(st.sampled_from("abcd"), st.one_of(parts, trees), max_size=4)), trees)
def test_anything_is_a_config_or_a_config_error(rewards: object, scoring: object) -> None:
    try:
        config = validate(RewardsConfig, {"rewards": rewards, "scoring": scoring}, source="test")
    except ConfigError:
        return
    assert leaves(config.rewards)


def test_the_config_of_a_run_is_one_of_rewards_too(tmp_path: Path) -> None:
    rewards = "rewards: {correct: {use: exact, weight: 2.0}}\nscoring: {combine: sum, on_error: abort}\n"
    alone, run = tmp_path / "rewards.yaml", tmp_path / "run.yaml"
    alone.write_text(rewards)
    run.write_text(rewards + "name: demo\nmodel: {tiny: {}}\ndata: {train: {task: sums}}\n")
    assert load_rewards_config(run) == load_rewards_config(alone)
    alone.write_text(rewards + "nmae: demo\n")
    with pytest.raises(ConfigError, match="unknown key 'nmae'"):
        load_rewards_config(alone)
