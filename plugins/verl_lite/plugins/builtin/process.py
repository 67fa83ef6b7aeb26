r"""Process rewards that check the steps themselves: `process` (the arithmetic of every line)."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from verl_lite.plugins.builtin.equations import equations_in
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome, StepScore


class ProcessOptions(ConfigModel):
    """A step is a line with at least one equation between numbers, such as "3 * 4 + 1 = 13".

    Only what can be decided exactly is scored: other lines, and equations with variables or functions,
    get no value.
    """

    right: float = Field(
        default=0.0,
        allow_inf_nan=False,
        description="the value of a step whose equations all hold; above 0, writing '1 + 1 = 2' pays",
    )
    wrong: float = Field(
        default=-1.0,
        allow_inf_nan=False,
        description="the value of a step with an equation that does not hold",
    )
    rounding: bool = Field(
        default=True,
        description="a decimal on the right may be the left side rounded to its digits (10 / 3 = 3.33), "
        "and so may a whole number after an 'about' sign",
    )
    value: Literal["none", "fraction", "all"] = Field(
        default="none",
        description="the value of the whole completion. none: 0.0; fraction: the share of right steps; "
        "all: 1.0 when every step is right, else 0.0",
    )


@reward("process", options=ProcessOptions)
def process_reward(rollout: Rollout, options: ProcessOptions) -> Score:
    """A value for every arithmetic step in the completion, checked exactly; abstains without any."""
    steps, num_right, first_wrong = [], 0, ""
    for start, line in _lines(rollout.completion):
        equations = list(equations_in(line, rounding=options.rounding))
        if not equations:
            continue
        wrong = next((equation.text for equation in equations if not equation.holds), "")
        first_wrong = first_wrong or wrong
        num_right += not wrong
        body = line.strip()
        begin = start + line.index(body)
        steps.append(StepScore(begin, begin + len(body), options.wrong if wrong else options.right))
    if not steps:
        return Score.failed(ScoreOutcome.ABSTAIN, "there is no equation between numbers to check")
    share = num_right / len(steps)
    value = {"none": 0.0, "fraction": share, "all": float(share == 1.0)}[options.value]
    reason = f"does not hold: {first_wrong}" if first_wrong else ""
    details = {"steps": len(steps), "right": num_right}
    return Score(value, reason=reason, details=details, steps=tuple(steps))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with the position of its first character."""
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1
