"""Finds the program in a response: the last fenced block in the language, or the whole text."""

import ast
import html
import re
import textwrap
import warnings
from typing import NamedTuple

LANGUAGE_TAGS: dict[str, frozenset[str]] = {
    # and with a version: py3, python3.11
    "python": frozenset({"python", "py", "pypy", "cpython", "ipython"}),
    "bash": frozenset({"bash", "sh", "shell"}),
    "c": frozenset({"c"}),
    "cpp": frozenset({"cpp", "c++", "cc", "cxx"}),
    "go": frozenset({"go", "golang"}),
    "java": frozenset({"java"}),
    "javascript": frozenset({"javascript", "js", "node"}),
    "rust": frozenset({"rust", "rs"}),
    "typescript": frozenset({"typescript", "ts"}),
}

_OPENING = re.compile(r"^(?P<before>.*?)(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)$")
_LEADS_IN = re.compile(r"[\s>]*|.*[\s>:{(*]")  # what may stand before a fence on its line
_THOUGHT_ENDS = re.compile(
    r"</think(?:ing)?>|</reasoning>|</thought>|<channel\|>|<\|channel\|>final[^<]*<\|message\|>"
)
_THOUGHT_BEGINS = re.compile(r"\s*(<think(?:ing)?>|<reasoning>|<thought>|<\|channel>|<\|channel\|>analysis)")
_TURN_ENDS = re.compile(r"<\|(?:end|return|im_end|eot_id|eom_id|end_of_text|endoftext)\|>")
_MARKED = re.compile(
    r"<code[^>]*>(?P<html>.*?)(?:</code>|\Z)|\[PYTHON\](?P<square>.*?)(?:\[/PYTHON\]|\Z)"
    r"|\\begin\{(?P<env>code|verbatim|lstlisting)\}(?P<latex>.*?)\\end\{(?P=env)\}"
    r"|BEGIN SOLUTION(?P<solution>.*?)END SOLUTION|\[BEGIN\](?P<begun>.*?)(?:\[DONE\]|\Z)"
    r"|<(?P<tag>solution|answer|python|program)>(?P<tagged>.*?)(?:</(?P=tag)>|\Z)",
    re.DOTALL,
)
_MARKED_GROUPS = ("html", "square", "latex", "solution", "begun", "tagged")
_MAX_INNER_FENCES = 8
_ONE_LINE = re.compile(r"(`{3,})(?:([\w+#.]+)[ \t]+)?([^`\n]+?)\1")


class _Block(NamedTuple):
    tag: str
    text: str


def extract_program(response: str, language: str = "python") -> str | None:
    """The program in `response`, or None without one.

    Text up to the end of a thought (`</think>` and its relatives) is ignored; an unclosed thought holds
    no program. The last fenced block tagged with the language counts, else the last untagged one, even
    if the response was cut off inside it. Fences may be indented, quoted with `>`, or on one line;
    without any, `<code>` and the like mark the program. A response without marks is the program itself;
    one with fences of other languages only gives None.

    >>> extract_program("First:\\n```python\\nx = 1\\n```\\nBetter:\\n```py\\nx = 2\\n```\\nDone.")
    'x = 2\\n'
    >>> extract_program("print(1)")
    'print(1)'
    """
    text = _TURN_ENDS.sub("\n", _after_thoughts(response.removeprefix("\ufeff")))
    if language == "python" and "```" in text and _is_python(text):  # the fences are in its strings
        return text
    blocks = _fenced_blocks(text, language)
    if not blocks:  # ```python print(1)``` on one line
        blocks = [_Block(_tag(tag), code + "\n") for _, tag, code in _ONE_LINE.findall(text)]
    blocks = blocks or _marked_blocks(text)
    if not blocks:
        return text if text.strip() else None
    tags = LANGUAGE_TAGS.get(language, frozenset({language}))
    for wanted in (tags, frozenset({""})):
        chosen = [block.text for block in blocks if block.tag in wanted]
        if chosen:
            return chosen[-1] if chosen[-1].strip() else None
    return None


def _after_thoughts(response: str) -> str:
    ends = list(_THOUGHT_ENDS.finditer(response))
    if ends:
        return response[ends[-1].end() :]
    return "" if _THOUGHT_BEGINS.match(response) else response


def _tag(info: str) -> str:
    """The language that a fence names: `Python3 title=a`, `{.python}`, `pypy3`, `python3.11`."""
    words = info.split()
    word = words[0].strip("{}.").lower() if words else ""
    bare = re.sub(r"[-_]?[\d.]+$", "", word)
    return bare if bare in LANGUAGE_TAGS["python"] else word


def _fenced_blocks(text: str, language: str) -> list[_Block]:
    """Markdown's fenced code blocks, a little more lenient than CommonMark."""
    lines = text.replace("\r\n", "\n").split("\n")
    blocks: list[_Block] = []
    at = 0
    while at < len(lines):
        match = _OPENING.match(lines[at].rstrip())
        at += 1
        if match is None or not _opens(match):
            continue
        ends = [i for i in range(at, len(lines)) if _closes(lines[i], match)]
        end = ends[0] if ends else len(lines)
        if language == "python":  # the first fence ends the block, but for one in a string of the program
            whole = (i for i in ends[:_MAX_INNER_FENCES] if _is_python(_text(lines[at:i], match)))
            end = next(whole, end)
        blocks.append(_Block(_tag(match["info"]), _text(lines[at:end], match)))
        at = end + 1
    return blocks


def _opens(match: re.Match[str]) -> bool:
    """Whether a line opens a block: alone with its info, or after the text that leads in to it."""
    if match["fence"][0] in match["info"] or not _LEADS_IN.fullmatch(match["before"]):
        return False
    return not match["before"].strip(" \t>") or bool(_tag(match["info"]) and len(match["info"].split()) == 1)


def _closes(line: str, opening: re.Match[str]) -> bool:
    """The same fence or a longer one, with no word after it: "```", "> ```", "```}", "```</answer>"."""
    bare = line.strip().lstrip("> ") if ">" in opening["before"] else line.strip()
    fence = opening["fence"]
    rest = bare.lstrip(fence[0])
    return len(bare) - len(rest) >= len(fence) and not re.match(r"\s*[\w.{#]", rest)


def _text(lines: list[str], opening: re.Match[str]) -> str:
    """The lines of a block without the fence's own quote marks and indentation."""
    before = opening["before"]
    if ">" in before and not before.strip(" >"):
        lines = [re.sub(r"^(?:\s*>)+ ?", "", line) for line in lines]
    width = len(before) if not before.strip() else 0
    text = "\n".join(line[min(width, len(line) - len(line.lstrip())) :] for line in lines)
    return text + "\n" if lines else ""


def _is_python(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _marked_blocks(text: str) -> list[_Block]:
    """Programs between other marks, if they stand there on purpose: not code words within a program."""
    if _is_python(text) and not text.lstrip().startswith(("[BEGIN]", "[PYTHON]")):  # these are lists
        return []
    found = []
    for match in _MARKED.finditer(text):
        inner = next(group for group in map(match.group, _MARKED_GROUPS) if group is not None)
        inner = html.unescape(inner) if match["html"] is not None else inner
        found.append(_Block("", textwrap.dedent(inner.strip("\n")) + "\n"))
    return found
