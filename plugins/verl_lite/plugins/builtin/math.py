"""The reward `math`: is the answer in the completion the reference?"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from verl_lite.plugins.contract import Register, hookimpl, reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.verifiers import MathOptions, Outcome, Verdict, verify_math_batch


class MathRewardOptions(BaseModel):
    """The options of `verify_math`, and what each outcome is worth.

    mode, timeout_s, rel_tol, rounding, units: see MathOptions; `timeout_s` is the deadline per pair
    unparsed  the value if no answer can be read; None for no value
    wrong     the value of a wrong answer
    partial   credit for a reference of several parts (a list, set, tuple or vector), by the share of
              parts that are right: 0 for none, 0.5 for at most half of full marks
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["lenient", "strict"] = "lenient"
    timeout_s: float = Field(default=5.0, gt=0)
    rel_tol: float = Field(default=1e-6, ge=0, lt=1)
    rounding: Literal["reference", "exact"] = "reference"
    units: Literal["convert", "require", "strip"] = "convert"
    unparsed: float | None = 0.0
    wrong: float = 0.0
    partial: float = Field(default=0.0, ge=0, lt=1)

    def verifier_options(self) -> MathOptions:
        return MathOptions(
            mode=self.mode,
            timeout_s=self.timeout_s,
            rel_tol=self.rel_tol,
            rounding=self.rounding,
            units=self.units,
            partial=self.partial > 0,
        )


# Not isolated: verify_math runs whatever can hang in its own killable processes, with its own deadline.
# The call's deadline leaves time to start them on a busy machine.
@reward("math", options=MathRewardOptions, form="batch", isolate=False, timeout_s=60.0, max_batch=256)
def math_reward(rollouts: Sequence[Rollout], options: MathRewardOptions) -> list[Score]:
    """1.0 when the completion's answer is the reference, whatever its notation, else 0.0."""
    pairs = [(rollout.completion, rollout.reference) for rollout in rollouts]
    known = [(completion, reference) for completion, reference in pairs if reference is not None]
    verdicts = iter(verify_math_batch(known, options=options.verifier_options()))
    missing = Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
    return [missing if reference is None else _score(next(verdicts), options) for _, reference in pairs]


def _score(verdict: Verdict, options: MathRewardOptions) -> Score:
    details = {
        "verdict": verdict.outcome.value,
        "extracted": verdict.extracted,
        "matched_by": verdict.matched_by,
    }
    if verdict.outcome is Outcome.CORRECT:
        return Score(1.0, reason=verdict.reason, details=details)
    if verdict.outcome is Outcome.WRONG:
        value = max(options.wrong, options.partial * verdict.credit)
        return Score(value, reason=verdict.reason, details=details)
    if verdict.outcome is Outcome.UNPARSED:
        reason = f"unparsed: {verdict.reason}"
        if options.unparsed is None:
            return Score.failed(ScoreOutcome.ABSTAIN, reason, **details)
        return Score(options.unparsed, reason=reason, details=details)
    failed = ScoreOutcome.TIMEOUT if verdict.outcome is Outcome.TIMEOUT else ScoreOutcome.ERROR
    return Score.failed(failed, f"{verdict.outcome.value}: {verdict.reason}", **details)


@hookimpl
def register_rewards(register: Register) -> None:
    register(math_reward)
