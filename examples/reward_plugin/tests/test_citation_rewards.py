"""The rewards `cited_claims` and `quotes`: values worked out by hand, hacks that must not pay."""

import pytest
from citation_rewards import cited_claims, quotes

from verl_lite.lab.pytest_plugin import ScoreRollouts
from verl_lite.plugins import Rollout
from verl_lite.plugins.testing import assert_any_order, assert_score, fake_group, fake_rollout

SOURCES = {
    "sources": [
        "The Rhine rises in Switzerland and flows into the North Sea near Rotterdam.",
        "Cologne Cathedral was completed in 1880, after work of more than 600 years.",
    ]
}


def answer(completion: str) -> Rollout:
    return fake_rollout(completion, question="Tell me about the Rhine.", columns=SOURCES)


def test_the_share_of_supported_sentences() -> None:
    text = "The Rhine rises in Switzerland [1]. Cologne Cathedral was completed in 1880 [2]. It is tall."
    assert_score(cited_claims, answer(text), 2 / 3, reason="It is tall.")


def test_a_citation_may_follow_the_full_stop() -> None:
    assert_score(cited_claims, answer("It flows into the North Sea. [1] It is long."), 1 / 2)


def test_an_invented_source_takes_everything() -> None:
    text = "The Rhine rises in Switzerland [1]. It is 1,230 km long [3]."
    assert_score(cited_claims, answer(text), 0.0, reason="cites [3], there are 2 sources")


def test_reasoning_is_not_the_answer() -> None:
    assert_score(cited_claims, answer("<think>Cite [9]?</think>The Rhine flows north [1]."), 1.0)
    assert_score(cited_claims, answer("<think>The Rhine flows north [1]."), 0.0, reason="no answer")


@pytest.mark.parametrize(
    "hack",
    [
        "[1] [2]",
        "Bananas grow quickly [1]. Guitars have strings [1].",
        "Everything is great [1][2].",
        "",
    ],
)
def test_hacks_do_not_pay(hack: str) -> None:
    assert_score(cited_claims, answer(hack), 0.0)


def test_citing_everything_can_be_forbidden() -> None:
    text = "The Rhine rises in Switzerland [1][2]."
    assert_score(cited_claims, answer(text), 1.0)
    assert_score(cited_claims, answer(text), 0.0, options={"max_per_sentence": 1})


def test_quotes_stand_in_the_source_they_cite() -> None:
    text = 'It "rises in Switzerland, and flows" north [1]. It has "more than 600 years" [1].'
    assert_score(quotes, answer(text), 1 / 2, reason="more than 600 years")


def test_nothing_quoted_is_not_a_wrong_answer() -> None:
    assert_score(quotes, answer('The "Rhine" flows north [1].'), None, outcome="abstain")


def test_rows_without_sources_are_errors_and_not_0() -> None:
    rollout = fake_rollout("The Rhine flows north [1].")
    assert_score(cited_claims, rollout, None, outcome="error", reason="expected a list of texts")


def test_the_order_does_not_matter() -> None:
    group = fake_group(["The Rhine [1].", "It flows.", "The North Sea [1]. Cologne [2]."], columns=SOURCES)
    assert_any_order(cited_claims, group)


def test_a_config_finds_both_by_name(score_rollouts: ScoreRollouts) -> None:
    config = {"cited": {"use": "cited_claims"}, "quoted": {"use": "quotes", "weight": 0.5}}
    row = {"completion": 'It "flows into the North Sea" [1].', **SOURCES}
    [scored] = score_rollouts(config, [row])
    assert scored.reward == 1.5
