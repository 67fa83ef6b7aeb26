"""`format` and `regex`: what has the shape, and what only looks like it."""

import pytest
from pydantic import ValidationError

from verl_lite.plugins import Rollout
from verl_lite.plugins.builtin import FormatOptions, RegexOptions, format_reward, regex_reward


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
    score = regex_reward(Rollout(completion=text), RegexOptions(pattern=pattern, fullmatch=fullmatch))
    assert score.value == value
    assert bool(score.reason) == (value == 0.0)


@pytest.mark.parametrize("options", [{}, {"pattern": ""}, {"pattern": "(["}, {"pattern": "a", "flags": 1}])
def test_options_that_are_no_pattern_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RegexOptions.model_validate(options)


@pytest.mark.parametrize(
    ("text", "language", "problem"),
    [
        ("```python\nprint(1)\n```", "python", ""),
        ("Here:\n```Python\nprint(1)\n```\nDone.", "python", ""),
        ("```\nprint(1)\n```", "", ""),
        ("```\nprint(1)\n```", "python", "of no named language"),
        ("```js\nprint(1)\n```", "python", "the code block is 'js', expected 'python'"),
        ("print(1)", "", "no code block"),
        ("```python\nprint(1)", "", "is not closed"),
        ("```python\n \n```", "", "the code block is empty"),
        ("```python\n1\n```\n```python\n2\n```", "", "4 lines of ```, expected 2"),
        ("```python\n1\n```python", "", "is closed by '```python'"),
        ("", "", "no code block"),
    ],
)
def test_code_fence(text: str, language: str, problem: str) -> None:
    score = format_reward(Rollout(completion=text), FormatOptions(pattern="code_fence", language=language))
    assert score.value == (0.0 if problem else 1.0)
    assert problem in score.reason


def test_tags_of_another_name_and_reasoning_the_prompt_opened() -> None:
    options = FormatOptions(think_tag="reasoning", answer_tag="final", prompt_opens_think=True)
    for text in (
        "2+2</reasoning><final>4</final>",
        "<reasoning>2+2</reasoning>\n<final>4</final>",
    ):
        assert format_reward(Rollout(completion=text), options).value == 1.0
    score = format_reward(Rollout(completion="</reasoning><final>4</final>"), options)
    assert (score.value, score.reason) == (0.0, "the <reasoning> part is empty")
    score = format_reward(
        Rollout(completion="<think>2+2</think><answer>4</answer>"), FormatOptions(think_tag="reasoning")
    )
    assert score.value == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"pattern": "boxed", "language": "python"},
        {"think_tag": "a", "answer_tag": "a"},
        {"think_tag": "<think>"},
        {"think_tag": ""},
        {"pattern": "json"},
    ],
)
def test_shapes_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FormatOptions.model_validate(options)
