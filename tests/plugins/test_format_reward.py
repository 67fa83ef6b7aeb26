"""`format` and `regex`: what has the shape, and what only looks like it."""

import pytest
from pydantic import ValidationError

from verl_lite.plugins import Rollout
from verl_lite.plugins.builtin.format import FormatOptions, RegexOptions, format_reward, regex


@pytest.mark.unit
@pytest.mark.parametrize(
    ("pattern", "text", "problem"),
    [
        ("boxed", r"so \boxed{4}", ""),
        ("boxed", r"so \boxed{\frac{1}{2}}.", ""),
        ("boxed", "so 4", r"0 \boxed{...}, expected 1"),
        ("boxed", r"\boxed{3} or \boxed{4}", r"2 \boxed{...}, expected 1"),
        ("boxed", r"\boxed{4", r"the \boxed{ is not closed"),
        ("boxed", r"\boxed{ }", r"the \boxed{} is empty"),
        ("boxed", "", r"0 \boxed{...}, expected 1"),
        ("think_answer", "<think>2+2</think>\n<answer>4</answer>\n", ""),
        ("think_answer", "<think>2+2</think><answer></answer>", "the <answer> is empty"),
        ("think_answer", "<think> </think><answer>4</answer>", "the <think> part is empty"),
        ("think_answer", "<answer>4</answer>", "expected <think>...</think> exactly once"),
        ("think_answer", "hm <think>a</think><answer>4</answer>", "expected <think>...</think> at the start"),
        ("think_answer", "</think>a<think><answer>4</answer>", "expected <think>...</think> at the start"),
        ("think_answer", "<think>a</think><answer>4</answer> bye", "expected nothing around <answer>"),
        (
            "think_answer",
            "<think>a</think><answer>3</answer><answer>4</answer>",
            "<answer>...</answer> exactly",
        ),
        ("think_answer", "<think>a</think></answer>4<answer>", "expected nothing around <answer>"),
        ("think_answer", "<think>a<answer>4</answer></think>", "<answer>...</answer> exactly once after"),
        ("think_boxed", r"<think>2+2</think> It is \boxed{4}.", ""),
        ("think_boxed", r"<think>\boxed{4}</think> four", r"0 \boxed{...}, expected 1"),
        ("think_boxed", r"\boxed{4}", "expected <think>...</think> exactly once"),
    ],
)
def test_format(pattern: str, text: str, problem: str) -> None:
    options = FormatOptions.model_validate({"pattern": pattern})
    score = format_reward(Rollout(completion=text), options)
    assert score.value == (0.0 if problem else 1.0)
    assert problem in score.reason


@pytest.mark.unit
@pytest.mark.parametrize(
    ("pattern", "fullmatch", "text", "value"),
    [
        (r"a.*b", True, "a\nb", 1.0),
        (r"a.*b", True, "a\nb!", 0.0),
        (r"\d+", False, "so 42.", 1.0),
        (r"\d+", False, "none", 0.0),
    ],
)
def test_regex(pattern: str, fullmatch: bool, text: str, value: float) -> None:
    assert regex(Rollout(completion=text), RegexOptions(pattern=pattern, fullmatch=fullmatch)) == value


@pytest.mark.parametrize("options", [{}, {"pattern": ""}, {"pattern": "(["}, {"pattern": "a", "flags": 1}])
def test_options_that_are_no_pattern_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RegexOptions.model_validate(options)
