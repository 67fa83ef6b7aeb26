"""Whether a response follows its instructions, strictly or loosely."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verl_lite.verifiers.instructions.ifbench_forms import IFBENCH_FORMS
from verl_lite.verifiers.instructions.ifbench_words import IFBENCH_WORDS
from verl_lite.verifiers.instructions.ifeval import IFEVAL, Check
from verl_lite.verifiers.instructions.texts import Arguments

INSTRUCTION_KINDS: Mapping[str, Check] = {**IFEVAL, **IFBENCH_WORDS, **IFBENCH_FORMS}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionResult:
    """Whether one instruction was followed."""

    kind: str
    is_followed: bool


def verify_instructions(
    response: str,
    kinds: Sequence[str],
    arguments: Sequence[Mapping[str, object] | None],
    *,
    loose: bool = False,
) -> list[InstructionResult]:
    """One result per instruction; `kinds` and `arguments` as in IFEval's `instruction_id_list`, `kwargs`.

    Loose: one of eight readings of the response has to follow the instruction: without its first line, its
    last line, both, and each of these without asterisks. A reading without any letter or digit follows
    nothing. Raises ValueError for an unknown kind and arguments that do not fit, RuntimeError where a kind
    needs a missing package.

    >>> verify_instructions("No, thanks", ["punctuation:no_comma"], [{}])[0].is_followed
    False
    """
    if len(kinds) != len(arguments):
        raise ValueError(f"{len(kinds)} instructions and the arguments of {len(arguments)}")
    unknown = sorted(set(kinds) - set(INSTRUCTION_KINDS))
    if unknown:
        raise ValueError(f"unknown instruction {unknown[0]!r}")
    readings = loose_readings(response) if loose else [response]
    readings = [one for one in readings if any(map(str.isalnum, one))]
    results = []
    for kind, given in zip(kinds, arguments, strict=True):
        args = Arguments(kind, given or {})
        # An empty response is checked too, and refused: bad arguments are an error for every response.
        followed = any(INSTRUCTION_KINDS[kind](one, args) for one in readings or [""]) and bool(readings)
        results.append(InstructionResult(kind=kind, is_followed=followed))
    return results


def loose_readings(response: str) -> list[str]:
    """The eight readings of IFEval's loose accuracy."""
    lines = response.split("\n")
    cut = [lines, lines[1:], lines[:-1], lines[1:-1]]
    readings = ["\n".join(part).strip() if part is not lines else response for part in cut]
    return list(dict.fromkeys([*readings, *(one.replace("*", "") for one in readings)]))
