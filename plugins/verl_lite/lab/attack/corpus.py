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

from verl_lite.plugins import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way to ask for an unearned reward; the completion is `repeat` copies of the text."""

    name: str
    family: str
    text: str
    why: str
    repeat: int = 1

    def needs(self, placeholder: str) -> bool:
        return f"<<{placeholder}>>" in self.text


@cache
def load_attacks() -> tuple[Attack, ...]:
    text = files("verl_lite.lab.attack").joinpath("corpus.jsonl").read_text(encoding="utf-8")
    return tuple(Attack(**json.loads(line)) for line in text.splitlines())


def attack_rollout(attack: Attack, rollout: Rollout, wrong: Sequence[str]) -> Rollout | None:
    """`rollout` with the attack as its completion; None if the row lacks what the attack needs.

    `wrong` holds two answers that are not the row's reference.
    """
    values: Mapping[str, str | None] = {
        "reference": rollout.reference,
        "wrong": wrong[0],
        "wrong2": wrong[1],
        "prompt": rollout.prompt_text or None,
        "entry_point": _entry_point(rollout),
    }
    text = attack.text
    for name, value in values.items():
        if attack.needs(name):
            if value is None:
                return None
            text = text.replace(f"<<{name}>>", value)
    text = re.sub(r"<<repeat:(.*?):(\d+)>>", lambda found: found[1] * int(found[2]), text) * attack.repeat
    return replace(
        rollout,
        id=f"{rollout.id}/{attack.name}",
        completion=text,
        completion_ids=(),
        logprobs=(),
        finish_reason="length" if attack.family == "unterminated" else "stop",
    )


def wrong_answers(reference: str | None, others: Sequence[str]) -> tuple[str, str]:
    """Two answers that are certainly not `reference`: shifted numbers, or references of other rows.

    >>> wrong_answers("42", []), wrong_answers("1/2", [])
    (('43', '45'), ('3/2', '7/2'))
    >>> wrong_answers("Paris", ["Paris", "Rome"])
    ('Rome', 'zzz')
    """
    try:
        value = Fraction((reference or "").strip().replace(",", ""))
    except (ValueError, ZeroDivisionError):
        different = [other for other in dict.fromkeys(others) if other != reference]
        padded = [*different[:2], "zzz", "qqq"]
        return padded[0], padded[1]
    return str(value + 1), str(value + 3)


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
