"""Several parts in words: "7 goats and 4 cows", "Maximum = 2, Minimum = 1", "A: 18, B: 14"."""

import re

from verl_lite.verifiers.math.answers.grammar import parse_answer
from verl_lite.verifiers.math.expressions import Expr, Unreadable, is_value, node, sym

MAX_PARTS = 20
MAX_CHARS = 400

_TEXT = re.compile(r"\\(?:text|textrm|textbf|mathrm|mbox)\s*+\{([^{}]*+)\}")
_BETWEEN = re.compile(r"\s*(?:[,;]\s*(?:and\b)?|\\\\|&|\band\b)\s*")
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9 .'()-]*?)\s*(?::|=|\bis\b)\s*([^=:]+)\Z")
_COUNTED = re.compile(r"([^A-Za-z]+?)\s*([A-Za-z][A-Za-z .'-]*)\Z")
_NO_LABELS = frozenset(
    "or but not if for when where either maybe than mod modulo base percent i e pi x y z".split()
)


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
    for pattern, name, value in ((_NAMED, 1, 2), (_COUNTED, 2, 1)):
        match = pattern.match(piece)
        if match is None:
            continue
        label = " ".join(word.rstrip("s") or word for word in match[name].casefold().split())
        tree = parse_answer(match[value].strip())
        is_usable = not isinstance(tree, Unreadable) and is_value(tree)
        if label and is_usable and not _NO_LABELS & set(label.split()):
            assert isinstance(tree, Expr)
            return node("rel", sym(label), tree, value="=")
    return None
