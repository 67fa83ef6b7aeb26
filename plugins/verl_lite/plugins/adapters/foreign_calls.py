"""How TRL, verl and OpenRLHF call a reward function (TRL 1.16, verl 0.9, OpenRLHF 0.11)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict

from verl_lite.plugins.contract import Form
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, to_score

Read = Callable[[Any], Sequence[object]]
Prepared = tuple[dict[str, Any], Read]  # the keyword arguments, and the reader of the result


class TrlOptions(BaseModel):
    """`conversational` passes prompts and completions as messages, as TRL does for data sets whose prompts
    are messages; else they are text. Every other key goes to the function.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    conversational: bool = True


@dataclass(slots=True)
class _Logged:
    """Collects what a function logs by TRL's `log_extra` and `log_metric`, for the scores' details."""

    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        self.columns[column] = values

    def log_metric(self, name: str, value: float) -> None:
        self.metrics[name] = value

    def attached_to(self, answers: Any, num_rows: int) -> Sequence[object]:
        """The answers with the logged values in their details; unchanged if their number is wrong."""
        answers = answers.tolist() if hasattr(answers, "tolist") else answers
        if not (self.columns or self.metrics) or not isinstance(answers, list) or len(answers) != num_rows:
            return answers  # type: ignore[no-any-return]
        columns = {name: list(values) for name, values in self.columns.items() if len(values) == num_rows}
        return [
            _with_details(answer, {**{name: values[row] for name, values in columns.items()}, **self.metrics})
            for row, answer in enumerate(answers)
        ]


class TrlCall:
    """reward(prompts=, completions=, completion_ids=, trainer_state=, log_extra=, log_metric=, **columns).

    One call gets all samples of a prompt, which TRL's functions may compare. `trainer_state.global_step`
    is the policy version of the samples.
    """

    form: Form = "group"

    def prepare(self, rollouts: Sequence[Rollout], options: Mapping[str, object]) -> Prepared:
        extra = {key: value for key, value in options.items() if key != "conversational"}
        keys = dict.fromkeys(key for rollout in rollouts for key in rollout.columns)
        logged = _Logged()
        arguments = {
            **{key: [rollout.columns.get(key) for rollout in rollouts] for key in keys},
            **_conversations(rollouts, as_messages=bool(options["conversational"])),
            "completion_ids": [list(rollout.completion_ids) for rollout in rollouts],
            "trainer_state": SimpleNamespace(global_step=rollouts[0].policy_version),
            "log_extra": logged.log_extra,
            "log_metric": logged.log_metric,
            **extra,
        }
        return arguments, lambda result: logged.attached_to(result, len(rollouts))


def said(rollout: Rollout) -> list[dict[str, object]]:
    """The messages after the prompt."""
    if rollout.turns:
        return [dict(turn.message) for turn in rollout.turns]
    return [{"role": "assistant", "content": rollout.completion}]


def _conversations(rollouts: Sequence[Rollout], *, as_messages: bool) -> dict[str, list[object]]:
    if not as_messages:
        return {
            "prompts": [rollout.prompt_text for rollout in rollouts],
            "completions": [rollout.completion for rollout in rollouts],
        }
    return {
        "prompts": [[dict(message) for message in rollout.prompt] for rollout in rollouts],
        "completions": [said(rollout) for rollout in rollouts],
    }


class VerlCall:
    """compute_score(data_source=, solution_str=, ground_truth=, extra_info=, **reward_kwargs).

    `extra_info` is the column of that name, as in verl's data sets, else all columns.
    """

    form: Form = "rollout"

    def prepare(self, rollouts: Sequence[Rollout], options: Mapping[str, object]) -> Prepared:
        (rollout,) = rollouts
        columns = rollout.columns
        reward_model = columns.get("reward_model")
        truth = reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None
        if truth is None:
            truth = columns.get("ground_truth", rollout.reference)
        extra_info = columns.get("extra_info")
        extra_info = dict(extra_info) if isinstance(extra_info, Mapping) else dict(columns)
        arguments = {
            "data_source": columns.get("data_source"),
            "solution_str": rollout.completion,
            "ground_truth": truth,
            "extra_info": {"num_turns": None, "rollout_reward_scores": {}, **extra_info},
            **options,
        }
        return arguments, self._answers

    def _answers(self, result: object) -> Sequence[object]:
        if not isinstance(result, Mapping):
            return [result]
        if "score" not in result:
            raise TypeError(f"a verl reward returned a dict without 'score'; it has: {', '.join(result)}")
        return [_with_details(result["score"], {k: v for k, v in result.items() if k != "score"})]


class OpenRlhfCall:
    """reward_func(queries, prompts, labels) -> {"rewards", "scores", "extra_logs"}, for one sample."""

    form: Form = "rollout"

    def prepare(self, rollouts: Sequence[Rollout], options: Mapping[str, object]) -> Prepared:
        (rollout,) = rollouts
        prompt = rollout.prompt_text
        arguments = {
            "queries": [prompt + rollout.completion],
            "prompts": [prompt],
            "labels": [rollout.columns.get("label", rollout.reference)],
            **options,
        }
        return arguments, self._answers

    def _answers(self, result: object) -> Sequence[object]:
        if not isinstance(result, Mapping) or "rewards" not in result:
            raise TypeError(f"an OpenRLHF reward returned {result!r:.80}: expected a dict with 'rewards'")
        logs = result.get("extra_logs") or {}
        details = {key: _only(value) for key, value in logs.items()}
        if result.get("scores") is not None:
            details["scores"] = _only(result["scores"])
        return [_with_details(_only(result["rewards"]), details)]


def _only(value: object) -> object:
    """The one number in a tensor or list, or a plain number; raises ValueError if there are several."""
    while hasattr(value, "tolist") or isinstance(value, (list, tuple)):
        if isinstance(value, (list, tuple)):
            if len(value) != 1:
                raise ValueError(f"expected one value for one sample, got {len(value)}")
            value = value[0]
        else:
            value = value.tolist()
    return value


def _with_details(value: object, details: Mapping[str, object]) -> Score:
    score = to_score(value)
    return Score(score.value, score.outcome, score.reason, {**score.details, **details})
