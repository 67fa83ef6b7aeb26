"""How verifiers calls reward functions: those of its tasks (0.3 on) and those of a Rubric (before 0.4).

A function gets the arguments that it names as parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from verl_lite.plugins.adapters.foreign_calls import Prepared, said
from verl_lite.plugins.contract import Form
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score


@dataclass(frozen=True, slots=True)
class RubricCall:
    """reward(prompt, completion, answer, state, task, info, **row): one sample of a classic environment."""

    names: tuple[str, ...]
    takes_all: bool
    form: ClassVar[Form] = "rollout"

    def prepare(self, rollouts: Sequence[Rollout], options: Mapping[str, object]) -> Prepared:
        given = {**_row(rollouts[0]), **options}
        return _wanted(given, self.names, self.takes_all), lambda result: [result]


@dataclass(frozen=True, slots=True)
class RubricGroupCall:
    """reward(prompts, completions, answers, states, tasks, infos) -> list: all samples of one prompt."""

    names: tuple[str, ...]
    takes_all: bool
    form: ClassVar[Form] = "group"
    plurals: ClassVar[frozenset[str]] = frozenset(
        {"states", "prompts", "completions", "answers", "tasks", "infos"}
    )

    def prepare(self, rollouts: Sequence[Rollout], options: Mapping[str, object]) -> Prepared:
        rows = [_row(rollout) for rollout in rollouts]
        plurals = {name: [row[name.removesuffix("s")] for row in rows] for name in self.plurals}
        return _wanted({**plurals, **options}, self.names, self.takes_all), lambda result: result


def _wanted(given: dict[str, object], names: Sequence[str], takes_all: bool) -> dict[str, object]:
    return given if takes_all else {name: given[name] for name in names if name in given}


def _row(rollout: Rollout) -> dict[str, object]:
    """The arguments a Rubric passes to its functions by name, including the row's columns."""
    prompt = [dict(message) for message in rollout.prompt]
    completion = said(rollout)
    fields = {
        "prompt": prompt,
        "completion": completion,
        "answer": rollout.columns.get("answer", rollout.reference),
        "task": rollout.columns.get("task"),
        "info": rollout.columns.get("info", {}),
    }
    state = {**fields, "example_id": rollout.group, "is_truncated": rollout.is_truncated, "trajectory": []}
    return {**rollout.columns, **fields, "state": state}


@dataclass(frozen=True, slots=True)
class TaskRewardCall:
    """reward(task, trace) of verifiers' tasks, on a trace made from the rollout. Needs verifiers installed.

    The task's data has every column of the rollout, and the reference as `answer` unless a column is.
    """

    names: tuple[str, ...]
    form: ClassVar[Form] = "rollout"

    def prepare(self, rollouts: Sequence[Rollout], options: Mapping[str, object]) -> Prepared:
        data, trace = _task_and_trace(rollouts[0])
        given = {**options, "task": data, "trace": trace}
        return _wanted(given, self.names, takes_all=False), self._answers

    def _answers(self, result: object) -> Sequence[object]:
        if not isinstance(result, Mapping):
            return [result]
        return [Score(float(sum(result.values())), details=dict(result))]  # summed as by the trace


def _task_and_trace(rollout: Rollout) -> tuple[object, object]:
    import verifiers.v1 as vf
    from pydantic import TypeAdapter
    from verifiers.v1.configs.agent import WireAgentConfig

    prompt = [dict(message) for message in rollout.prompt]
    data = vf.WireTaskData(**{"answer": rollout.reference, **rollout.columns, "prompt": prompt})
    read = TypeAdapter(vf.Message)
    given = [*(dict(message) for message in rollout.prompt), *said(rollout)]
    messages = [read.validate_python(message) for message in given]
    nodes = [
        vf.MessageNode(
            parent=at - 1 if at else None,
            message=message,
            sampled=at >= len(rollout.prompt) and given[at]["role"] == "assistant",
        )
        for at, message in enumerate(messages)
    ]
    trace = vf.Trace(
        task=vf.TraceTask(type="Task", data=data),
        agent=vf.AgentInfo(config=WireAgentConfig()),
        nodes=nodes,
        stop_condition="max_output_tokens" if rollout.is_truncated else None,
        is_completed=True,
        ok=True,
    )
    return data, trace
