r"""Where answers stand in a text: \boxed{...} and <tag>...</tag>. Linear in the text, whatever it holds."""

import re
from dataclasses import dataclass

__all__ = ["Mark", "boxes", "tagged"]

# An escaped brace is a character, not a brace; a control word before it is not an escape.
_BRACES = re.compile(r"\\[{}\\]|\\boxed\s{0,8}\{|[{}]")


@dataclass(frozen=True, slots=True)
class Mark:
    """`content` stands inside the marker that covers the characters [start, end)."""

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Mark]:
    r"""Every closed \boxed{...} that is not inside another one, in order.

    >>> [mark.content for mark in boxes(r"\boxed{\frac{1}{2}} and \boxed{3")]
    ['\\frac{1}{2}']
    """
    found: list[Mark] = []
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
                found.append(Mark(box[0], match.end(), text[box[1] : match.start()]))
    return found


def tagged(text: str, tag: str) -> list[Mark]:
    """Every <tag>...</tag>, in order; each from the last opening before its closing.

    >>> [mark.content for mark in tagged("<a>1</a> <a><a>2</a>", "a")]
    ['1', '2']
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    found: list[Mark] = []
    done = 0
    end = text.find(closing)
    while end >= 0:
        start = text.rfind(opening, done, end)
        done = end + len(closing)
        if start >= 0:
            found.append(Mark(start, done, text[start + len(opening) : end]))
        end = text.find(closing, done)
    return found
