"""One reward out of many: every rule against numbers worked out by hand."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from verl_lite.errors import ConfigError, DataError, PluginError, RewardError
from verl_lite.plugins import (
    RewardCatalog,
    RewardsConfig,
    Rollout,
    Score,
    ScoredRollout,
    ScoreOutcome,
    Scorer,
    StepScore,
    definition_of,
    reward,
    validate,
)


def column_reward(name: str) -> Any:
    """A reward that answers the rollout's column `name`, or raises it when it is an exception."""

    @reward(name, isolate=False)
    def read(rollout: Rollout) -> object:
        answer = rollout.columns.get(name, 0.0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return definition_of(read)


CATALOG = RewardCatalog(rewards={name: column_reward(name) for name in ("a", "b", "c")})


def rollout(
    group: str = "g", id: str = "", text: str = "abc", ids: tuple[int, ...] = (), **columns: object
) -> Rollout:
    return Rollout(completion=text, id=id, group=group, columns=columns, completion_ids=ids)


def score(
    rewards: Mapping[str, Any],
    *rollouts: Rollout,
    step: int = 0,
    scorer: Mapping[str, Any] | None = None,
    **scoring: Any,
) -> list[ScoredRollout]:
    config = validate(RewardsConfig, {"rewards": rewards, "scoring": scoring}, source="test")
    with Scorer(config, catalog=CATALOG, debug_inline=True, **(scorer or {})) as opened:
        return list(opened.score(rollouts, step=step).rows)


def one(
    rewards: Mapping[str, Any], step: int = 0, scoring: Mapping[str, Any] | None = None, **columns: object
) -> ScoredRollout:
    return score(rewards, rollout(**columns), step=step, **(scoring or {}))[0]  # type: ignore[arg-type]


A, B, C = {"use": "a"}, {"use": "b"}, {"use": "c"}
ERROR = ValueError("broken")


@pytest.mark.parametrize(
    ("rewards", "scoring", "columns", "expected"),
    [
        ({"a": A, "b": {**B, "weight": 0.2}}, {}, {"a": 1, "b": 0.5}, 1.1),
        ({"a": {**A, "clip": [-1, 1]}}, {}, {"a": 7}, 1.0),
        ({"a": {**A, "clip": [None, 1]}}, {}, {"a": -7}, -7.0),
        ({"a": {**A, "clip": [0, 1], "scale": 2, "offset": -1, "weight": 3}}, {}, {"a": 0.75}, 3 * 0.5),
        ({"a": {**A, "weight": {"linear": {0: 0, 10: 1}}}}, {}, {"a": 4}, 2.0),  # at step 5
        ({"a": A, "b": {**B, "weight": -0.5}}, {}, {"a": 1, "b": 1}, 0.5),
        ({"a": A, "b": {**B, "weight": 2}}, {"combine": "product"}, {"a": 3, "b": 0.5}, 3.0),
        ({"a": A, "b": {**B, "weight": 0}}, {"combine": "product"}, {"a": 3, "b": 0.5}, 3.0),  # a shadow
        ({"a": A, "b": B}, {"combine": "product"}, {"a": 3, "b": None}, 3.0),
        ({"a": A, "b": B}, {"combine": "gdpo"}, {"a": 3, "b": 1}, 4.0),
        ({"a": A, "b": B}, {}, {"a": 3, "b": None}, 3.0),  # abstaining adds nothing
        ({"a": A, "b": B}, {}, {"a": None, "b": None}, None),
        ({"a": {**A, "weight": 0}, "b": B}, {}, {"a": 1, "b": None}, None),  # a shadow is no value
        ({"a": A, "b": B}, {"on_abstain": "drop"}, {"a": 3, "b": None}, None),
        ({"a": A, "b": {**B, "offset": 1}}, {"on_abstain": "zero"}, {"a": 3, "b": None}, 4.0),
        ({"a": A, "b": {**B, "on_abstain": "drop"}}, {}, {"a": 3, "b": None}, None),
        ({"a": A, "b": B}, {}, {"a": 3, "b": ERROR}, None),
        ({"a": A, "b": {**B, "scale": 2, "offset": -1}}, {"on_error": "zero"}, {"a": 3, "b": ERROR}, 2.0),
        ({"a": A, "b": {**B, "on_error": "zero"}}, {}, {"a": 3, "b": ERROR}, 3.0),
        ({"a": A, "b": B}, {"combine": "product", "on_error": "zero"}, {"a": 3, "b": ERROR}, 0.0),
        (
            {"a": A, "b": {**B, "weight": 0}},
            {},
            {"a": 3, "b": ERROR},
            3.0,
        ),  # a shadow's failure drops nothing
        ({"a": A}, {}, {"a": float("nan")}, None),
        ({"a": A}, {}, {"a": "1.0"}, None),
        ({"a": {**A, "scale": 1e300, "weight": 1e300}}, {}, {"a": 1}, None),  # infinite: dropped
        # gates
        ({"a": A, "b": {**B, "when": "a > 0"}}, {}, {"a": 1, "b": 0.25}, 1.25),
        ({"a": A, "b": {**B, "when": "a > 0", "offset": 9}}, {}, {"a": 0, "b": 0.25}, 0.0),
        ({"b": {**B, "when": "a > 0"}, "a": A}, {}, {"a": 1, "b": 0.25}, 1.25),  # order is free
        ({"a": A, "b": {**B, "when": "a > 0"}}, {"combine": "product"}, {"a": 0.5, "b": 0.25}, 0.125),
        ({"a": A, "b": {**B, "when": "a > 1"}}, {"combine": "product"}, {"a": 0.5, "b": 0.25}, 0.5),
        ({"a": {**A, "weight": 0}, "b": {**B, "when": "a > 0"}}, {}, {"a": 0, "b": 1}, 0.0),
        ({"a": A, "b": {**B, "when": "a > 0"}}, {"on_error": "zero"}, {"a": ERROR, "b": 1}, 0.0),
        ({"a": {**A, "weight": 0}, "b": {**B, "when": "a > 0"}}, {}, {"a": ERROR, "b": 1}, None),
        (
            {"a": A, "b": {**B, "when": "a > 0"}, "c": {**C, "when": "b > 0"}},
            {},
            {"a": 0, "b": 1, "c": 5},
            0.0,
        ),
        ({"a": {**A, "clip": [0, 1]}, "b": {**B, "when": "a > 1"}}, {}, {"a": 2, "b": 1}, 2.0),  # raw value
        # groups
        ({"g": {"rewards": {"a": A, "b": B}, "weight": 2}}, {}, {"a": 1, "b": 0.5}, 3.0),
        (
            {"c": C, "g": {"combine": "product", "rewards": {"a": A, "b": B}}},
            {},
            {"a": 4, "b": 0.5, "c": 1},
            3.0,
        ),
        ({"c": C, "g": {"clip": [0, 1], "rewards": {"a": A, "b": B}}}, {}, {"a": 4, "b": 0.5, "c": 1}, 2.0),
        ({"c": C, "g": {"rewards": {"a": A, "b": B}}}, {}, {"a": None, "b": None, "c": 1}, 1.0),
        ({"c": C, "g": {"rewards": {"a": A}}}, {}, {"a": ERROR, "c": 1}, None),
        ({"c": C, "g": {"weight": 0, "rewards": {"a": A}}}, {}, {"a": ERROR, "c": 1}, 1.0),
        (
            {"c": {**C, "weight": 0}, "g": {"when": "c > 0", "offset": 5, "rewards": {"a": A}}},
            {},
            {"a": 1, "c": 0},
            0.0,
        ),
        (
            {"c": C, "g": {"when": "c > 0", "rewards": {"a": A, "b": {**B, "when": "a > 0"}}}},
            {},
            {"a": 2, "b": 3, "c": 1},
            6.0,
        ),
        (
            {"c": C, "g": {"combine": "product", "rewards": {"a": {**A, "when": "c > 0"}, "b": B}}},
            {},
            {"a": 2, "b": 3, "c": 0},
            3.0,
        ),
    ],
)
def test_the_reward(
    rewards: Mapping[str, Any], scoring: Mapping[str, Any], columns: Mapping[str, Any], expected: float | None
) -> None:
    row = one(rewards, step=5, scoring=scoring, **columns)
    assert row.reward == (expected if expected is None else pytest.approx(expected))
    assert bool(row.dropped_because) == (expected is None)


def test_a_row_keeps_every_components_part() -> None:
    row = one(
        {"a": {**A, "scale": 2, "weight": 0.5}, "g": {"rewards": {"b": B}}, "c": {**C, "when": "a > 5"}},
        a=3,
        b=1,
    )
    parts = row.components
    assert list(parts) == ["a", "g/b", "g", "c"]
    assert (parts["a"].score.value, parts["a"].weight, parts["a"].contribution) == (3.0, 0.5, 3.0)
    assert (parts["g"].score.value, parts["g"].contribution) == (1.0, 1.0)
    assert parts["c"].score.outcome is ScoreOutcome.ABSTAIN
    assert parts["c"].score.reason == "not run: when: a > 5"
    assert parts["c"].contribution == 0.0


def test_a_dropped_row_says_why_and_keeps_its_scores() -> None:
    row = one({"a": A, "b": B}, a=ERROR, b=2)
    assert row.dropped_because.startswith("error in a: ValueError: broken")
    assert row.components["a"].contribution is None
    assert row.components["b"].contribution == 2.0


@pytest.mark.parametrize(
    ("rewards", "scoring"),
    [
        ({"a": A}, {}),
        ({"a": A}, {"on_error": "zero", "on_timeout": "zero"}),
        ({"a": {**A, "weight": 2}, "b": B}, {"combine": "product"}),
        ({"a": {**A, "when": "b > 5"}, "b": {**B, "weight": 0}}, {}),  # a closed gate would be 0.0
    ],
)
def test_a_trajectory_whose_environment_failed_has_no_reward(
    rewards: dict[str, Any], scoring: dict[str, Any]
) -> None:
    """Not even where its rewards have values or a policy gives 0; the others of its group keep theirs."""
    failed, whole = score(
        rewards,
        replace(rollout(a=1, b=1), finish_reason="error"),
        replace(rollout(a=1, b=1), finish_reason="stop"),
        **scoring,
    )
    assert failed.reward is None
    assert failed.dropped_because == "the environment failed"
    assert failed.components.keys() == rewards.keys()
    assert whole.reward is not None


def test_an_undecided_gate_says_what_it_waited_for() -> None:
    row = one({"a": A, "b": {**B, "when": "a > 0"}}, a=None, b=2)
    assert row.components["b"].score.reason == "not run: when: a > 0: no value of a to decide by"
    assert row.components["b"].contribution is None
    assert row.dropped_because == "no component had a value"


def test_rows_go_to_the_rewards_of_their_source() -> None:
    rewards = {"a": {**A, "sources": ["x", "z"]}, "b": {**B, "sources": ["y"]}, "c": {**C, "weight": 0.1}}
    rows = score(rewards, *(rollout(data_source=source, a=1, b=2, c=10) for source in "xyzq"))
    assert [row.reward for row in rows] == [2.0, 3.0, 2.0, 1.0]
    assert rows[1].components["a"].score.reason == "not run: data_source is none of x, z"
    assert rows[1].components["a"].contribution is None


def test_a_group_routes_its_rewards() -> None:
    rewards = {"g": {"sources": ["x", "y"], "rewards": {"a": {**A, "sources": ["y", "z"]}, "b": B}}, "c": C}
    rows = score(rewards, *(rollout(kind=kind, a=1, b=2, c=4) for kind in "xyz"), source_column="kind")
    assert [row.reward for row in rows] == [6.0, 7.0, 4.0]


def test_a_source_without_rewards_is_an_error_and_no_zero() -> None:
    rewards = {"a": {**A, "sources": ["x"]}, "b": {**B, "sources": ["y"]}}
    with pytest.raises(DataError, match=r"rollout 'r1': no reward takes data_source='w'; .* name: x, y"):
        score(rewards, rollout(id="r1", data_source="w"))
    with pytest.raises(DataError, match=r"rollout 'r1' has no column 'data_source'.* its columns are: a"):
        score(rewards, rollout(id="r1", a=1))


def test_process_rewards_become_token_rewards() -> None:
    steps = (StepScore(0, 2, 1.0), StepScore(2, 4, -0.5))
    given = rollout(
        text="abcd",
        ids=(7, 8, 9, 0),
        a=Score(0.25, steps=steps),
        b=Score(0.0, steps=(StepScore(1, 2, 4.0, "token"),)),
    )
    pieces = {7: "a", 8: "bc", 9: "d", 0: "<eos>"}
    decode = {"decode": lambda ids: "".join(pieces[i] for i in ids)}
    rewards = {"a": {**A, "weight": 2.0}, "b": {**B, "clip": [0, 3]}}
    row = score(rewards, given, scorer=decode)[0]
    assert row.reward == 0.5
    assert row.token_rewards == [0.0, 2.0 + 3.0, -1.0, 0.0]
    # without the tokenizer each of the four tokens is taken to hold one of the four characters
    assert score(rewards, given)[0].token_rewards == [0.0, 2.0 + 3.0, 0.0, -1.0]


def test_steps_that_do_not_fit_are_an_error() -> None:
    row = one({"a": A}, text="abc", ids=(1, 2), a=Score(1.0, steps=(StepScore(0, 9, 1.0),)))
    assert row.dropped_because == "error in a: the step [0, 9) is outside the completion's 3 characters"
    assert not row.token_rewards


def test_steps_inside_a_product_are_refused() -> None:
    steps = Score(1.0, steps=(StepScore(0, 1, 1.0),))
    with pytest.raises(RewardError, match=r"g/a gives process rewards, .* top level of a sum"):
        one({"g": {"rewards": {"a": A}}}, a=steps)
    with pytest.raises(RewardError, match="top level of a sum"):
        one({"a": A}, scoring={"combine": "product"}, a=steps)


def test_a_shadows_steps_reward_no_token() -> None:
    given = rollout(text="ab", ids=(1, 2), a=Score(1.0, steps=(StepScore(0, 1, 1.0),)), b=2)
    assert not score({"a": {**A, "weight": 0}, "b": B}, given)[0].token_rewards


def test_without_token_ids_steps_are_checked_and_placed_nowhere() -> None:
    assert not one({"a": A}, a=Score(1.0, steps=(StepScore(0, 3, 1.0),))).token_rewards


def test_mistakes_that_need_the_rewards_name_the_config_key() -> None:
    with pytest.raises(
        PluginError, match=r"rewards\.g\.rewards\.x\.use: there is no reward 'aa': did you mean 'a'"
    ):
        one({"g": {"rewards": {"x": {"use": "aa"}}}})
    with pytest.raises(
        ConfigError, match=r"rewards\.a\.options of reward 'a': unknown option 'n': it takes: none"
    ):
        one({"a": {**A, "options": {"n": 1}}})


answers = st.one_of(
    st.floats(-4, 4), st.none(), st.booleans(), st.just("text"), st.just(float("inf")), st.just(ERROR)
)
ROWS = st.lists(st.tuples(st.sampled_from("xyz"), answers, answers, answers), min_size=1, max_size=12)
MIXED = {
    "a": {**A, "clip": [-1, 2]},
    "b": {**B, "when": "a > 0", "weight": 0.3},
    "g": {"combine": "product", "rewards": {"c": {**C, "on_error": "zero"}}, "sources": ["x", "y"]},
}


@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_order_and_batch_size_change_nothing(rows: list[tuple[Any, ...]], random: Any, size: int) -> None:
    config = RewardsConfig.model_validate({"rewards": MIXED, "scoring": {"max_error_fraction": 1}})
    given = [rollout(id=str(i), data_source=s, a=a, b=b, c=c) for i, (s, a, b, c) in enumerate(rows)]
    shuffled = random.sample(given, len(given))
    with Scorer(config, catalog=CATALOG, debug_inline=True) as scorer:
        whole = {row.rollout.id: outcome_of(row) for row in scorer.score(given).rows}
        session = scorer.start()
        for start in range(0, len(shuffled), size):
            session.add(shuffled[start : start + size])
        pieces = session.finish().rows
        single = [scorer.score([item]).rows[0] for item in given]
    assert [row.rollout.id for row in pieces] == [item.id for item in shuffled]
    for row in itertools.chain(pieces, single):
        assert outcome_of(row) == whole[row.rollout.id]


def outcome_of(row: ScoredRollout) -> tuple[Any, ...]:
    parts = {name: (part.score, part.contribution) for name, part in row.components.items()}
    return row.reward, row.dropped_because, parts
