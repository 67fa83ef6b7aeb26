"""`guard`: ways to earn a reward without doing the task."""

from typing import Any

import pytest

from verl_lite.plugins import RewardsConfig, Rollout, Scorer
from verl_lite.plugins.builtin import GuardOptions, guard_reward

WORK = "First I add the two numbers and then I check the result once more: "


def problem(text: str, prompt: str = "", **options: Any) -> str:
    messages = ({"role": "user", "content": prompt},) if prompt else ()
    score = guard_reward(Rollout(completion=text, prompt=messages), GuardOptions.model_validate(options))
    assert score.value == (0.0 if score.reason else 1.0)
    return score.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WORK + r"\boxed{4}", ""),
        (WORK + "<answer>4</answer>", ""),
        (f"<think>{WORK}</think><answer>\\boxed{{4}}</answer>", ""),
        (WORK + r"so \boxed{4}, that is \boxed{4}", ""),  # the same one twice is one
        (r"\boxed{4}", "0 words before the answer, expected at least 10"),
        ("<think></think><answer>4</answer>", "0 words before the answer"),
        ("the sum is <answer>4</answer>", "3 words before the answer"),
        ("so " * 20 + r"\boxed{4}", "1 different words before the answer"),
        (". , ; - ! ? . , ; - ! ? " + r"\boxed{4}", "0 words before the answer"),
        (r"\boxed{4} because " + WORK, "0 words before the answer"),  # reasoning after the fact
        (WORK + r"\boxed{3} \boxed{4} \boxed{5}", "3 different answers, expected at most 1"),
        (WORK + "<answer>3</answer><answer>4</answer>", "2 different answers"),
        (WORK + r"\boxed{3 or 4}", "an answer of 2 alternatives"),
        (WORK + r"\boxed{3 \text{ or } 4 or 5}", "an answer of 3 alternatives"),
        (WORK + r"\boxed{for}", ""),
        (WORK + r"\boxed{" + "1, " * 200 + "}", "an answer of 600 characters"),
        ("no answer", ""),
        ("", ""),
    ],
)
def test_guard(text: str, expected: str) -> None:
    found = problem(text)
    assert found.startswith(expected) if expected else not found


def test_checks_that_are_off_and_on() -> None:
    off = {"min_reasoning_words": 0, "min_distinct_words": 0, "max_answers": 0, "max_alternatives": 0}
    assert not problem(r"\boxed{3 or 4} \boxed{5}", **off)
    assert "there is no answer" in problem("I do not know", require_answer=True)
    question = "What is the sum of 2 and 2?"
    copied = f"What is the sum of 2 and 2? {WORK}\\boxed{{4}}"
    assert not problem(copied, question)
    assert "more than 5 words in a row" in problem(copied, question, max_prompt_copy_words=5)
    assert not problem(copied, question, max_prompt_copy_words=8)


def test_as_a_gate_it_takes_the_reward_from_what_it_refuses() -> None:
    config = RewardsConfig.model_validate(
        {
            "rewards": {
                "honest": {"use": "guard", "weight": 0.0},
                "correct": {"use": "exact", "when": "honest > 0", "options": {"answer_tag": "answer"}},
            }
        }
    )
    texts = [WORK + "<answer>4</answer>", "<answer>4</answer>", WORK + "<answer>5</answer>"]
    with Scorer(config) as scorer:
        batch = scorer.score([Rollout(completion=text, reference="4") for text in texts])
    assert [row.reward for row in batch.rows] == [1.0, 0.0, 0.0]
