"""Several parts in words: "7 goats and 4 cows", "Maximum = 2, Minimum = 1", "A: 18, B: 14"."""

import re

from verl_lite.verifiers.math.answers.grammar import parse_answer
from verl_lite.verifiers.math.expressions import Expr, Unreadable, is_value, node, num, sym

MAX_PARTS = 20
MAX_CHARS = 400

_TEXT = re.compile(r"\\(?:text|textrm|textbf|mathrm|mbox)\s*+\{([^{}]*+)\}")
_BETWEEN = re.compile(r"\s*(?:(?:;|,(?![0-9]{3}(?![0-9])))\s*(?:and\b)?|\\\\|&|\band\b)\s*")
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9 .'()-]*?)\s*(?::|=|\bis\b)\s*([^=:]+)\Z")
_COUNTED = re.compile(r"([^A-Za-z]+?)\s*([A-Za-z][A-Za-z .'-]*)\Z")
_VALUED = re.compile(r"([A-Za-z][A-Za-z .'-]*?)\s+(-?[0-9][^A-Za-z]*)\Z")
_PRICED = re.compile(r"\\(dollar|euro|pounds|yen|rupee)\s*([^A-Za-z]+)\Z")
_NUMBERED = re.compile(
    r"(?:(?<![A-Za-z0-9\\])\(\s*+([a-h1-9]|i{1,3}|iv|I{1,3}|IV)\s*+\)|(?<![A-Za-z0-9(\\])([a-h1-9])\))\s*+"
)
_NUMERALS = ("123456789", "abcdefgh", ("i", "ii", "iii", "iv"), ("I", "II", "III", "IV"))
_NO_LABELS = frozenset(
    "or but not if for when where either maybe than mod modulo least most over under about base percent i e "
    "pi x y z".split()
)


def read_numbered(text: str) -> Expr | None:
    """(1) 3; (2) 5: the "list" of numbered answers, each named by its number; None for others."""
    marks = list(_NUMBERED.finditer(text)) if len(text) <= MAX_CHARS else []
    names = [mark[1] or mark[2] for mark in marks]
    if len(marks) < 2 or marks[0].start():
        return None
    if "".join(mark[0] for mark in marks) == text and all(name.isdigit() for name in names):
        return node("list", *(num(int(name)) for name in names))  # (2)(3): two of several statements
    if not any(list(row[: len(names)]) == names for row in _NUMERALS):
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    named = []
    for at, (mark, end) in enumerate(zip(marks, ends, strict=True)):
        value = parse_answer(text[mark.end() : end].strip(" ,;."))
        if isinstance(value, Unreadable):
            return None
        named.append(node("rel", sym(f"part {at + 1}"), value, value="="))
    return node("list", *named)


def read_parts(text: str) -> Expr | None:
    """The "list" of several named values, each as an equation of its name; None for other text."""
    if len(text) > MAX_CHARS or not re.search("[A-Za-z]{2}|:", text):
        return None
    pieces = [piece for piece in _BETWEEN.split(_TEXT.sub(r" \1 ", text).strip(" .")) if piece.strip()]
    if not 1 < len(pieces) <= MAX_PARTS:
        return None
    read = [_part(piece.strip()) for piece in pieces]
    return node("list", *(part for part in read if part)) if all(read) else None


def _part(piece: str) -> Expr | None:
    for pattern, name, value in ((_NAMED, 1, 2), (_PRICED, 1, 2), (_VALUED, 1, 2), (_COUNTED, 2, 1)):
        match = pattern.match(piece)
        if match is None:
            continue
        label = " ".join(word.rstrip("s") or word for word in match[name].casefold().split())
        tree = parse_answer(match[value].strip())
        if isinstance(tree, Expr) and is_value(tree) and label and not _NO_LABELS & set(label.split()):
            return node("rel", sym(label), tree, value="=")
    return None
