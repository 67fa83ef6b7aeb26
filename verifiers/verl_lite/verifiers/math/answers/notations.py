r"""Notation read only where the other side has what it stands for: C_n^2, \Gamma(11), R for the reals."""

import re
from collections.abc import Callable
from math import prod

from verl_lite.verifiers.math.answers.answer import Answer, read_answer

_COUNT = r"\{?\s*([a-z0-9](?:[a-z0-9+-]|(?<=[a-z0-9+-])\s(?=[a-z0-9+-])){0,8})\s*\}?"
_WAYS = re.compile(
    rf"(?<![A-Za-z\\])([CAP])\s*_\s*{_COUNT}\s*\^\s*{_COUNT}"  # C_n^2
    rf"|(?<![A-Za-z\\])([CAP])\s*\^\s*{_COUNT}\s*_\s*{_COUNT}"  # C^2_n
    rf"|(?:\{{\s*\}}\s*|(?<![A-Za-z0-9}})]))[_^]\s*{_COUNT}\s*([CAP])\s*_\s*{_COUNT}"  # {}_nC_2
    rf"|(?<![A-Za-z\\_^])([CAP])\s*\(\s*{_COUNT}\s*,\s*{_COUNT}\s*\)"  # C(n, 2)
    r"|(?<![A-Za-z\\])([a-z])([CP])([a-z0-9])(?![A-Za-z0-9])"  # nCr
)
_GAMMA = re.compile(
    r"\\Gamma\s*\(\s*([0-9a-z+ -]{1,12}|[0-9]{1,2}/2|\\frac\s*\{\s*[0-9]{1,2}\s*\}\s*\{\s*2\s*\})\s*\)"
)
_REALS = re.compile(r"(?<![A-Za-z\\{_])R(?![A-Za-z_'0-9(])")
_SETS = re.compile(r"\\mathbb|\\infty|\\in(?![a-z])|[<>]|\\[lgn]e(?![a-z])|\\cup|\\setminus")


def _chosen(match: re.Match[str]) -> str:
    first, second, third = (group for group in match.groups() if group is not None)
    if first in "CAP":
        letter, counts = first, (second, third) if match[1] or match[10] else (third, second)
    else:
        letter, counts = second, (first, third)
    total, chosen = counts
    if letter == "C":
        return f"\\binom{{{total}}}{{{chosen}}}"
    return f"\\frac{{({total})!}}{{(({total})-({chosen}))!}}"


def _factorial(match: re.Match[str]) -> str:
    argument = match[1].replace(" ", "")
    if "2" not in argument or not ("/" in argument or "frac" in argument):
        return f"(({argument})-1)!"
    top = int(re.findall("[0-9]+", argument)[0])
    if top % 2 == 0:
        return f"({top // 2 - 1})!" if top else match[0]
    odd = prod(range(top - 2, 0, -2))
    return f"\\frac{{{odd}\\sqrt{{\\pi}}}}{{{2 ** ((top - 1) // 2)}}}"


def _with_ways(ours: str, theirs: str) -> tuple[str, str] | None:
    """Both with binomials, where no letter of them is left as the name of a number."""
    found = _WAYS.sub(_chosen, ours), _WAYS.sub(_chosen, theirs)
    letters = {
        letter
        for text in (ours, theirs)
        for match in _WAYS.finditer(text)
        for letter in "CAP"
        if letter in match[0]
    }
    is_left = any(
        re.search(rf"(?<![A-Za-z\\]){letter}(?![a-z])", text) for letter in letters for text in found
    )
    return None if is_left else found


def _with_factorials(ours: str, theirs: str) -> tuple[str, str]:
    return _GAMMA.sub(_factorial, ours), _GAMMA.sub(_factorial, theirs)


def _with_reals(ours: str, theirs: str) -> tuple[str, str] | None:
    r"""R as \mathbb{R} on the one side that has it, where the other is a set of numbers."""
    has_ours, has_theirs = (_REALS.search(text) is not None for text in (ours, theirs))
    if has_ours == has_theirs or not _SETS.search(theirs if has_ours else ours):
        return None
    return _REALS.sub(r"\\mathbb{R}", ours), _REALS.sub(r"\\mathbb{R}", theirs)


# What a side has to hold, and both sides in the other notation.
_NOTATIONS: tuple[tuple[re.Pattern[str], Callable[[str, str], tuple[str, str] | None]], ...] = (
    (_WAYS, _with_ways),
    (_GAMMA, _with_factorials),
    (_REALS, _with_reals),
)


def in_other_notation(reference: Answer, response: Answer) -> tuple[Answer, Answer] | None:
    """Both sides rewritten; None where neither holds such notation, or it may mean something else."""
    texts = reference.text, response.text
    if max(map(len, texts)) > 1000 or not any(letter in text for text in texts for letter in "CAPRG"):
        return None
    changed = texts
    for pattern, rewrite in _NOTATIONS:
        if any(map(pattern.search, changed)):
            changed = rewrite(*changed) or changed
    return (read_answer(changed[0]), read_answer(changed[1])) if changed != texts else None
