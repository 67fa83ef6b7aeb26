"""A language model as the judge: `judge`, over any OpenAI-compatible endpoint."""

from collections.abc import Sequence

from pydantic import Field, field_validator, model_validator

from verl_lite.plugins.builtin.judge_endpoint import (
    EndpointOptions,
    JudgeEndpoint,
    judge_reward,
    object_schema,
)
from verl_lite.plugins.builtin.judge_prompt import DEFAULT_RUBRIC, make_messages, read_reply, template_problem
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome


class JudgeOptions(EndpointOptions):
    """Which model to ask, what to ask it, and how to read its score.

    The judge must reply with `{"score": NUMBER, "reason": "..."}`; anything else is the outcome error,
    never a 0. Only 429, 5xx and failed connections are retried (up to four times).
    """

    rubric: str = Field(
        default=DEFAULT_RUBRIC,
        description="the request: a template with $question, $reference and $completion (required); "
        "'$$' is a dollar sign",
    )
    min_score: float = Field(
        default=0.0, allow_inf_nan=False, description="the lowest score the judge may give"
    )
    max_score: float = Field(default=10.0, allow_inf_nan=False, description="the highest")
    normalise: bool = Field(
        default=True, description="map min_score..max_score to 0..1; else the value is the judge's own number"
    )
    needs_reference: bool = Field(
        default=False, description="abstain if the rollout has no reference, instead of asking without one"
    )

    @field_validator("rubric")
    @classmethod
    def _is_template(cls, rubric: str) -> str:
        problem = template_problem(rubric)
        if problem:
            raise ValueError(problem)
        return rubric

    @model_validator(mode="after")
    def _has_a_range(self) -> "JudgeOptions":
        if self.min_score >= self.max_score:
            raise ValueError(f"min_score={self.min_score:g} must be below max_score={self.max_score:g}")
        return self


@judge_reward("judge", options=JudgeOptions, timeout_s=300.0)
class Judge:
    """A judge model's score for the completion, from an OpenAI-compatible endpoint."""

    def __init__(self, options: JudgeOptions) -> None:
        self._options = options
        self._endpoint = JudgeEndpoint(options)
        number = {"type": "number", "minimum": options.min_score, "maximum": options.max_score}
        self._schema = object_schema({"reason": {"type": "string"}, "score": number})

    async def __call__(self, rollout: Rollout) -> Score:
        options = self._options
        if options.needs_reference and not rollout.references:
            return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
        problem = too_long(rollout, options)
        if problem:
            return Score(self._value(options.min_score), reason=problem)
        texts = {
            "question": rollout.prompt_text,
            "completion": rollout.completion,
            "reference": any_of(rollout.references),
        }
        messages = make_messages(options.rubric, texts, low=options.min_score, high=options.max_score)
        return await self._endpoint.ask(messages, self._score, schema=self._schema)

    def _score(self, content: str) -> Score:
        options = self._options
        score, reason = read_reply(content, low=options.min_score, high=options.max_score)
        return Score(self._value(score), reason=reason, details={"judge_score": score})

    def _value(self, score: float) -> float:
        low, high = self._options.min_score, self._options.max_score
        return (score - low) / (high - low) if self._options.normalise else score


def too_long(rollout: Rollout, options: EndpointOptions) -> str:
    """Why the completion is not sent; "" if it is."""
    size, most = len(rollout.completion), options.max_completion_chars
    return f"not sent: {size} characters, more than max_completion_chars={most}" if size > most else ""


def any_of(references: Sequence[str]) -> str:
    """The accepted references as one text for a judge."""
    if len(references) < 2:
        return "".join(references)
    return "any of these:\n" + "\n".join(f"- {reference}" for reference in references)
