r"""Finds the answers marked in a text: \boxed{...} and <tag>...</tag>. Always in linear time."""

import re
from dataclasses import dataclass

# An escaped brace is a character, not a brace; a control word before a brace is not an escape.
_BRACES = re.compile(r"\\[{}\\]|\\boxed\s{0,8}\{|[{}]")


@dataclass(frozen=True, slots=True)
class AnswerMark:
    """`content` is the text inside a marker; the whole marker covers the characters [start, end)."""

    start: int
    end: int
    content: str


def find_boxed(text: str) -> list[AnswerMark]:
    r"""Every closed, outermost \boxed{...}, in order.

    >>> [mark.content for mark in find_boxed(r"\boxed{\frac{1}{2}} and \boxed{3")]
    ['\\frac{1}{2}']
    """
    found: list[AnswerMark] = []
    opened: list[tuple[int, int] | None] = []  # a box: (start, start of its content); None: another brace
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "{":
            opened.append(None)
        elif token.endswith("{") and token != r"\{":
            opened.append((match.start(), match.end()))
        elif token == "}" and opened:
            box = opened.pop()
            if box is not None:
                while found and found[-1].start > box[0]:
                    found.pop()
                found.append(AnswerMark(box[0], match.end(), text[box[1] : match.start()]))
    return found


def find_tagged(text: str, tag: str) -> list[AnswerMark]:
    """Every <tag>...</tag>, in order; each starts at the last opening tag before its closing tag.

    >>> [mark.content for mark in find_tagged("<a>1</a> <a><a>2</a>", "a")]
    ['1', '2']
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    found: list[AnswerMark] = []
    done = 0
    end = text.find(closing)
    while end >= 0:
        start = text.rfind(opening, done, end)
        done = end + len(closing)
        if start >= 0:
            found.append(AnswerMark(start, done, text[start + len(opening) : end]))
        end = text.find(closing, done)
    return found
