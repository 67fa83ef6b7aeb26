"""Finds the program in a response: the last fenced block in the language, or the whole text."""

import re
from dataclasses import dataclass

LANGUAGE_TAGS: dict[str, frozenset[str]] = {
    "python": frozenset({"python", "py", "python3", "py3"}),
    "bash": frozenset({"bash", "sh", "shell"}),
    "c": frozenset({"c"}),
    "cpp": frozenset({"cpp", "c++", "cc", "cxx"}),
    "javascript": frozenset({"javascript", "js", "node"}),
}

_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)$")


@dataclass(frozen=True, slots=True)
class _Block:
    tag: str
    text: str


def extract_program(response: str, language: str = "python") -> str | None:
    """The program in `response`, or None without one.

    Text up to the last `</think>` is ignored; an unclosed thought holds no program. The last fenced
    block tagged with the language counts, else the last untagged one, even if the response was cut
    off inside it. A response without fences is the program itself; one with fences of other
    languages only gives None.

    >>> extract_program("First:\\n```python\\nx = 1\\n```\\nBetter:\\n```py\\nx = 2\\n```\\nDone.")
    'x = 2\\n'
    >>> extract_program("print(1)")
    'print(1)'
    """
    text = _after_thoughts(response)
    blocks = _fenced_blocks(text)
    if not blocks:
        return text if text.strip() else None
    tags = LANGUAGE_TAGS.get(language, frozenset({language}))
    for wanted in (tags, frozenset({""})):
        chosen = [block.text for block in blocks if block.tag in wanted]
        if chosen:
            return chosen[-1] if chosen[-1].strip() else None
    return None


def _after_thoughts(response: str) -> str:
    before, end, answer = response.rpartition("</think>")
    if end:
        return answer
    return "" if before == "" and response.lstrip().startswith("<think>") else response


def _fenced_blocks(text: str) -> list[_Block]:
    """Markdown's fenced code blocks, by the CommonMark rules for opening and closing."""
    blocks: list[_Block] = []
    open_fence, tag = "", ""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        match = _FENCE.match(line.rstrip())
        if open_fence:
            if match and _closes(match, open_fence):
                blocks.append(_Block(tag, _joined(lines)))
                open_fence = ""
            else:
                lines.append(line)
        elif match and not (match["fence"][0] == "`" and "`" in match["info"]):
            info = match["info"].split()
            open_fence, tag, lines = match["fence"], info[0].strip("{}.").lower() if info else "", []
    if open_fence:
        blocks.append(_Block(tag, _joined(lines)))
    return blocks


def _closes(match: re.Match[str], open_fence: str) -> bool:
    fence = match["fence"]
    return fence[0] == open_fence[0] and len(fence) >= len(open_fence) and not match["info"].strip()


def _joined(lines: list[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""
