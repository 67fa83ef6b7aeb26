"""What no other type reads is compared as it is written: logic, sequences with dots, formulas in prose."""

import re

from verl_lite.verifiers.math.answers.answer import Answer
from verl_lite.verifiers.math.comparer import Comparer, Decision, decided
from verl_lite.verifiers.math.expressions import Unreadable

MAX_FORM_CHARS = 8000

_FONT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|mbox|operatorname|rm|bf)\b\*?\s*"
)
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|[A-Za-z]+|\S")
_SINGLE = re.compile(r"\{ (\S+) \}")
_RELATIONS = frozenset(
    "= < > \\times \\div \\le \\ge \\ne \\in \\notin \\subset \\subseteq \\approx \\equiv".split()
)
_NO_CONTENT = frozenset(
    r"\sum \int \prod \lim \quad \qquad \left \right \frac \sqrt \end \begin \cdot \ \, \; \: \! ".split()
    + "? ▲ △ _ . , ; : ( ) [ ] { } $ # | - + * / ^ ~ ' \" & ...".split()
)
_UNFINISHED = re.compile(
    r"(?:[-+*/^_=<>]|\\(?:cdot|times|frac|sqrt|div|pm|le|ge|ne|cup|cap|in|left|right))\s*\Z"
)


def read_form(answer: Answer) -> tuple[str, ...]:
    r"""The signs of an answer as it is written; () where it is damaged or has another type.

    >>> read_form(Answer(r"\forall x \ge 0, 2^{x} \ne 3"))
    ('\\forall', 'x', '\\ge', '0', ',', '2', '^', 'x', '\\ne', '3')
    """
    is_read = not isinstance(answer.tree, Unreadable)
    return () if is_read or _damage(answer) else answer.read(signs)


def signs(answer: Answer) -> tuple[str, ...]:
    """The signs of any answer, with fonts and braces around a single sign left out."""
    text = " ".join(_TOKEN.findall(_FONT.sub("", answer.text[: 2 * MAX_FORM_CHARS])))
    for _ in range(3):
        text = _SINGLE.sub(r"\1", text)
    found = [sign.lower() if len(sign) > 1 and sign.isalpha() else sign for sign in text.split()]
    if found[:1] == ["\\{"] and found[-1:] == ["\\}"] and "." in found:
        found = found[1:-1]  # a sequence with dots, in braces or not
    return tuple(sign for sign in found if sign not in ("the", "\\quad", "\\qquad"))


def fault(answer: Answer) -> str:
    """Why an answer that the grammar cannot read is no reference either; "" where it is one."""
    return f"the reference cannot be read: {damage}" if (damage := _damage(answer)) else ""


def _damage(answer: Answer) -> str:
    text = answer.text
    if len(text) > MAX_FORM_CHARS:
        return f"longer than {MAX_FORM_CHARS} characters"
    found = answer.read(signs)
    if found and all(sign in _RELATIONS or sign in ",;" for sign in found):
        return ""  # a sign to be filled in: <, >, =
    if all(sign in _NO_CONTENT for sign in found):
        return "it holds no answer"
    if _UNFINISHED.search(text):
        return "it ends in the middle"
    return _imbalance(text)


def _imbalance(text: str) -> str:
    """Braces must match; of other brackets as many must be opened as closed, as in [1, 2) and ]1, 2[."""
    depth = 0
    for sign in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            break
    if depth:
        return "braces that do not match"
    if text.count("\\begin") != text.count("\\end"):
        return "an environment that does not end"
    if text.count("\\{") > text.count("\\}") and "cases" not in text and "\\}" not in text:
        return "a set that does not end"
    if text.count("\\}") > text.count("\\{"):
        return "a set that does not begin"
    opened, closed = (sum(map(text.count, kind)) for kind in ("([", ")]"))
    is_prose = len(re.findall("[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+", " ", text))) > 1
    return "brackets that do not match" if opened != closed and not is_prose else ""


def compare(comparer: Comparer, reference: Answer, response: Answer) -> Decision | None:
    """The same signs. None for a reference of another type."""
    ours = reference.read(read_form)
    if not ours:
        return None
    return decided(ours == response.read(signs), "text", "the reference is compared as it is written")
