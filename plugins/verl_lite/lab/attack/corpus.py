"""The attacks: templates in corpus.jsonl, filled in for a row of the user's own data.

Placeholders: <<reference>>, <<wrong>> and <<wrong2>> (answers that are not the reference), <<prompt>>,
<<entry_point>> (the function a program must define) and <<repeat:TEXT:N>>. No attack is ever a right
answer: a reward that accepts one pays for nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from importlib.resources import files

from verl_lite.plugins import FunctionCall, Rollout, ToolCall, Turn

_FINISH = {"unterminated": "length", "endless calls": "turns"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way to ask for an unearned reward; the completion is `repeat` copies of the text.

    A trajectory has `turns` before the text, which is then the last assistant's; each is a role, a text and
    perhaps the code that a call of the tool `python` has. `cycles` repeats them.
    """

    name: str
    family: str
    text: str
    why: str
    repeat: int = 1
    turns: tuple[tuple[str, ...], ...] = ()
    cycles: int = 1

    def needs(self, placeholder: str) -> bool:
        return any(f"<<{placeholder}>>" in text for text in (self.text, *(turn[1] for turn in self.turns)))


@cache
def load_attacks() -> tuple[Attack, ...]:
    text = files("verl_lite.lab.attack").joinpath("corpus.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return tuple(Attack(**{**row, "turns": tuple(map(tuple, row.get("turns", ())))}) for row in rows)


def attack_rollout(attack: Attack, rollout: Rollout, wrong: Sequence[str]) -> Rollout | None:
    """`rollout` with the attack as its completion; None if the row lacks what the attack needs.

    `wrong` holds two answers that are not the row's reference.
    """
    values: Mapping[str, str | None] = {
        "reference": next(iter(rollout.references), None),
        "wrong": wrong[0],
        "wrong2": wrong[1],
        "prompt": rollout.prompt_text or None,
        "entry_point": _entry_point(rollout),
    }
    if any(value is None and attack.needs(name) for name, value in values.items()):
        return None
    text = _filled(attack.text, values) * attack.repeat
    return replace(
        rollout,
        id=f"{rollout.id}/{attack.name}",
        completion=text,
        completion_ids=(),
        logprobs=(),
        finish_reason=_FINISH.get(attack.family, "stop"),
        turns=_turns(attack, text, values),
        segments=(),
    )


def _filled(text: str, values: Mapping[str, str | None]) -> str:
    for name, value in values.items():
        text = text.replace(f"<<{name}>>", value or "")
    return re.sub(r"<<repeat:(.*?):(\d+)>>", lambda found: found[1] * int(found[2]), text)


def _turns(attack: Attack, text: str, values: Mapping[str, str | None]) -> tuple[Turn, ...]:
    """The attack's messages after the prompt; empty for a single completion."""
    turns = []
    for cycle in range(attack.cycles if attack.turns else 0):
        for role, content, *code in attack.turns:
            function = FunctionCall(name="python", arguments=json.dumps({"code": "".join(code)}))
            calls = (ToolCall(id=f"call-{cycle}", type="function", function=function),) if code else ()
            is_tool = role == "tool"
            turns.append(
                Turn(
                    role=role,
                    content=_filled(content, values),
                    tool_calls=calls,
                    name="python" * is_tool,
                    tool_call_id=f"call-{cycle}" * is_tool,
                )
            )
    return (*turns, Turn(role="assistant", content=text)) if turns else ()


def wrong_answers(
    reference: str | None, others: Sequence[str], *, accepted: Sequence[str] = ()
) -> tuple[str, str]:
    """Two answers that are certainly not `reference`: shifted numbers, or references of other rows.

    `accepted` are further right answers, of a row that has several.

    >>> wrong_answers("42", []), wrong_answers("1/2", [])
    (('43', '45'), ('3/2', '7/2'))
    >>> wrong_answers("Paris", ["Paris", "Rome"])
    ('Rome', 'zzz')
    """
    try:
        value = Fraction((reference or "").strip().replace(",", ""))
    except (ValueError, ZeroDivisionError):
        different = [other for other in dict.fromkeys(others) if other not in (reference, *accepted)]
        padded = [*different[:2], "zzz", "qqq"]
        return padded[0], padded[1]
    shifted = (str(value + step) for step in (1, 3, 7, 13, 29, *range(41, 41 + len(accepted))))
    first, second, *_ = (one for one in shifted if one not in accepted)
    return first, second


def _entry_point(rollout: Rollout) -> str:
    """The function the tests call: named by a column, else the first one in the prompt or tests."""
    for column in ("entry_point", "fn_name", "function_name"):
        if rollout.columns.get(column):
            return str(rollout.columns[column])
    for text in (rollout.prompt_text, json.dumps(rollout.columns, default=str)):
        found = re.search(r"def\s+([A-Za-z_]\w*)\s*\(", text) or re.search(r"assert\s+([A-Za-z_]\w*)\(", text)
        if found:
            return found[1]
    return "solution"
