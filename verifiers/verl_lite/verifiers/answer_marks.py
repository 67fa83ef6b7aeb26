r"""Where answers stand in a text: \boxed{...} and <tag>...</tag>. Linear in the text, whatever it holds."""

import re
from dataclasses import dataclass

__all__ = ["AnswerMark", "find_boxed", "find_tagged"]

# An escaped brace is a character, not a brace; a control word before it is not an escape.
_BRACES = re.compile(r"\\[{}\\]|\\boxed\s{0,8}\{|[{}]")


@dataclass(frozen=True, slots=True)
class AnswerMark:
    """`content` stands inside the marker that covers the characters [start, end)."""

    start: int
    end: int
    content: str


def find_boxed(text: str) -> list[AnswerMark]:
    r"""Every closed \boxed{...} that is not inside another one, in order.

    >>> [mark.content for mark in find_boxed(r"\boxed{\frac{1}{2}} and \boxed{3")]
    ['\\frac{1}{2}']
    """
    found: list[AnswerMark] = []
    opened: list[tuple[int, int] | None] = []  # a box: (start, start of the content); None: another brace
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
    """Every <tag>...</tag>, in order; each from the last opening before its closing.

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
