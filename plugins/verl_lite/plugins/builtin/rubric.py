"""Several named criteria with weights, graded by one call of a judge model: `rubric`."""

import json
from collections.abc import Mapping, Sequence

from pydantic import Field, model_validator

from verl_lite.plugins.builtin.judge import any_of, too_long
from verl_lite.plugins.builtin.judge_endpoint import (
    EndpointOptions,
    JudgeEndpoint,
    judge_reward,
    object_schema,
)
from verl_lite.plugins.builtin.judge_prompt import (
    GRADER,
    chat,
    fenced,
    read_json_reply,
    read_number,
    read_object,
    read_reason,
)
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

# What data sets with rubrics call these: HealthBench has criterion and points, Rubrics as Rewards
# (arXiv:2507.17746) title, description and weight.
TEXT_KEYS = ("description", "criterion", "text", "requirement", "rubric")
NAME_KEYS = ("name", "title", "id")
WEIGHT_KEYS = ("weight", "points", "score")
# A change here may change scores: raise the version of `rubric` too.
_SYSTEM = (
    GRADER
    + """\
Judge every criterion of the rubric on its own. Reply with one JSON object and nothing else: \
{{"reason": "one sentence", "scores": {{ID: NUMBER, ...}}}}, with every ID of the rubric. NUMBER is from 0 \
(the answer does not do what the criterion says) to {high:g} (it does so fully), also where doing so is bad.
"""
)


class Criterion(ConfigModel):
    """One thing to judge. Where it is a fault, its weight is below 0."""

    description: str = Field(min_length=1)
    """What the judge looks for."""
    name: str = ""
    """What the criterion is called in details and metrics."""
    weight: float = 1.0
    """Its share of the value, relative to the others'."""


class RubricOptions(EndpointOptions):
    """The criteria, and where a row keeps criteria of its own.

    The value is the weighted sum of the scores, divided by the sum of the weights above 0, and kept within
    0 and 1 (as in HealthBench, arXiv:2505.08775). A row's criteria may be a list of texts, a list of mappings
    (description, criterion or text; name or title; weight or points), a mapping of texts to weights, or JSON.
    """

    criteria: tuple[Criterion, ...] = Field(
        default=(),
        description="criteria of every row: {description, name, weight}; a weight below 0 is a fault",
    )
    column: str = Field(
        default="rubric", description="the column with a row's own criteria; rows may lack it"
    )
    max_score: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="what a criterion that is fully met gets"
    )

    @model_validator(mode="after")
    def _has_something_to_reward(self) -> "RubricOptions":
        if self.criteria and all(criterion.weight <= 0 for criterion in self.criteria):
            raise ValueError("no criterion has a weight above 0: nothing could be rewarded")
        return self


@judge_reward("rubric", options=RubricOptions, timeout_s=300.0)
class Rubric:
    """The weighted share of the criteria that a judge model finds met, asked once for all of them."""

    def __init__(self, options: RubricOptions) -> None:
        self._options = options
        self._endpoint = JudgeEndpoint(options)

    async def __call__(self, rollout: Rollout) -> Score:
        options = self._options
        criteria = (*options.criteria, *row_criteria(rollout.columns.get(options.column)))
        if not criteria:
            return Score.failed(
                ScoreOutcome.ABSTAIN, f"the row has no {options.column!r}, and no criteria are configured"
            )
        if all(criterion.weight <= 0 for criterion in criteria):
            return Score.failed(ScoreOutcome.ERROR, "bad row: no criterion has a weight above 0")
        problem = too_long(rollout, options)
        if problem:
            return Score(0.0, reason=problem)
        names = [f"c{number}" for number in range(1, len(criteria) + 1)]
        number = {"type": "number", "minimum": 0, "maximum": options.max_score}
        scores = object_schema(dict.fromkeys(names, number))
        schema = object_schema({"reason": {"type": "string"}, "scores": scores})
        return await self._endpoint.ask(
            _messages(rollout, criteria, high=options.max_score),
            lambda content: _score(content, criteria, high=options.max_score),
            schema=schema,
        )


def _messages(rollout: Rollout, criteria: Sequence[Criterion], *, high: float) -> list[dict[str, str]]:
    lines = [
        " ".join([f"c{number}:", *([f"{one.name}:"] if one.name else []), *one.description.split()])
        for number, one in enumerate(criteria, start=1)
    ]
    return chat(
        _SYSTEM.format(high=high),
        fenced("QUESTION", rollout.prompt_text),
        fenced("REFERENCE", any_of(rollout.references)),
        fenced("ANSWER", rollout.completion),
        fenced("RUBRIC", "\n".join(lines)),
    )


def _score(content: str, criteria: Sequence[Criterion], *, high: float) -> Score:
    reply = read_json_reply(content, {"reason": False, "scores": True})
    names = [f"c{number}" for number in range(1, len(criteria) + 1)]
    given = read_object(reply["scores"], dict.fromkeys(names, True))
    shares = [read_number(given[name], low=0, high=high, name=name) / high for name in names]
    total = sum(one.weight * share for one, share in zip(criteria, shares, strict=True))
    best = sum(max(one.weight, 0.0) for one in criteria)
    shown = [one.name or name for one, name in zip(criteria, names, strict=True)]
    by_name = {
        label if shown.count(label) == 1 else f"{label} ({name})": share
        for label, name, share in zip(shown, names, shares, strict=True)
    }
    value = min(1.0, max(0.0, total / best))
    return Score(value, reason=read_reason(reply.get("reason", "")), details={"criteria": by_name})


def row_criteria(column: object) -> tuple[Criterion, ...]:
    """The criteria of a row. Raises ValueError, whose message says what was expected.

    >>> row_criteria({"is polite": 1, "lies": -2})[1].weight
    -2.0
    """
    if isinstance(column, str):
        text = column.strip()
        try:
            column = json.loads(text) if text[:1] in ("[", "{") else [text] if text else None
        except ValueError as error:
            raise ValueError(f"bad row: the rubric is no JSON: {error}") from None
    if column is None:
        return ()
    if isinstance(column, Mapping):
        inner = column.get("rubrics", column.get("criteria"))
        if isinstance(inner, (list, tuple)):
            return row_criteria(inner)
        return tuple(_criterion({"description": text, "weight": weight}) for text, weight in column.items())
    if isinstance(column, (list, tuple)):
        return tuple(_criterion(item) for item in column)
    raise ValueError(f"bad row: the rubric is {type(column).__name__}, expected a list of criteria")


def _criterion(item: object) -> Criterion:
    if isinstance(item, str):
        item = {"description": item}
    if not isinstance(item, Mapping):
        raise ValueError(f"bad row: the criterion {item!r:.80} is neither text nor a mapping")
    text, name, weight = (_first(item, keys) for keys in (TEXT_KEYS, NAME_KEYS, WEIGHT_KEYS))
    text = name if text is None else text
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"bad row: the criterion {item!r:.80} has none of {', '.join(TEXT_KEYS)}")
    try:
        number = 1.0 if weight is None else float(str(weight))
    except ValueError:
        raise ValueError(f"bad row: the weight {weight!r:.40} of {text[:60]!r} is no number") from None
    return Criterion(description=text, name=str(name or "") if name != text else "", weight=number)


def _first(item: Mapping[str, object], keys: Sequence[str]) -> object:
    return next((item[key] for key in keys if item.get(key) is not None), None)
