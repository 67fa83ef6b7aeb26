"""Instructions that a program can check: `instructions` (IFEval and IFBench)."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.paths import literal
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.verifiers import verify_instructions

Given = tuple[Sequence[str], Sequence[Mapping[str, object] | None]]


class InstructionOptions(ConfigModel):
    """Where a row keeps its instructions, and how strictly they are meant.

    The columns are those of the data sets IFEval and IFBench: the names of the kinds, and as many mappings
    of arguments. A row may keep both in its reference, as JSON: [{"instruction_id": [...], "kwargs": [...]}].
    """

    mode: Literal["strict", "loose"] = Field(
        default="strict",
        description="loose: also right without the first or last line, or without asterisks (IFEval's eight "
        "readings), such as after 'Sure, here it is:'",
    )
    value: Literal["all", "fraction"] = Field(
        default="all",
        description="all: 1.0 when every instruction is followed; fraction: the share that is",
    )
    kinds_column: str = Field(default="instruction_id_list", description="the column with the kinds' names")
    arguments_column: str = Field(default="kwargs", description="the column with their arguments")
    after: str = Field(
        default="",
        description="only what stands after the last occurrence of this text is the response: </think>",
    )


@reward("instructions", options=InstructionOptions)  # isolated: langdetect takes its time over megabytes
def instructions_reward(rollout: Rollout, options: InstructionOptions) -> Score:
    """1.0 when the completion follows its row's instructions (IFEval's 25 kinds, IFBench's 58), else 0.0."""
    try:
        given = _given(rollout, options)
        if given is None:
            return Score.failed(ScoreOutcome.ABSTAIN, f"the row has no {options.kinds_column!r}")
        response = rollout.completion
        if options.after:
            response = response.rpartition(options.after)[2] if options.after in response else ""
        results = verify_instructions(response, *given, loose=options.mode == "loose")
    except ValueError as error:
        return Score.failed(ScoreOutcome.ERROR, f"bad row: {error}")
    missed = [result.kind for result in results if not result.is_followed]
    share = 1.0 - len(missed) / len(results)
    value = share if options.value == "fraction" else float(not missed)
    details = {"followed": len(results) - len(missed), "instructions": len(results)}
    return Score(value, reason=f"not followed: {', '.join(missed)}" if missed else "", details=details)


def _given(rollout: Rollout, options: InstructionOptions) -> Given | None:
    """The row's instructions; None without any. Raises ValueError for those that cannot be read."""
    kinds = _plain(rollout.columns.get(options.kinds_column))
    arguments = _plain(rollout.columns.get(options.arguments_column))
    if kinds is None:
        reference = _plain(rollout.reference or None)
        if isinstance(reference, (list, tuple)) and len(reference) == 1:
            reference = reference[0]
        if not isinstance(reference, Mapping) or "instruction_id" not in reference:
            return None
        kinds, arguments = reference["instruction_id"], reference.get("kwargs")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, (list, tuple)) or not kinds or not all(isinstance(one, str) for one in kinds):
        raise ValueError(f"expected the names of instructions, got {kinds!r:.80}")
    arguments = [{}] * len(kinds) if arguments is None else arguments
    arguments = [arguments] if isinstance(arguments, Mapping) else arguments
    if not isinstance(arguments, (list, tuple)):
        raise ValueError(f"expected the instructions' arguments, got {arguments!r:.80}")
    for one in arguments:
        if one is not None and not isinstance(one, Mapping):
            raise ValueError(f"expected the arguments of an instruction by name, got {one!r:.80}")
    return kinds, arguments


def _plain(value: object) -> object:
    """Text that holds JSON, or Python's notation of the same, as what it holds."""
    read = literal(value.strip()) if isinstance(value, str) else None
    return value if read is None else read
