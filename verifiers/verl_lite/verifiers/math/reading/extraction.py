r"""The answer in a response: `\boxed{}`, `<answer>`, `####`, an answer phrase, a bare final expression.

The last complete box decides; where the last box is not complete, there is no answer: an earlier
one is not used instead. Prose that offers several answers ("3, 5 or 7") offers none.
"""

import re
from typing import Literal

from verl_lite.verifiers.math.reading.escapes import with_commands
from verl_lite.verifiers.math.reading.statements import MAX_TAIL_CHARS, Extraction, bare, phrase_ends, phrased

MAX_ANSWER_CHARS = 100_000


_BOX = re.compile(r"\\f?boxed\b\s*|\\f(?:rame)?box\s*")
_BETWEEN_BOXES = re.compile(
    r"[\s$.,;&]*+(?:and|or|\\text\{\s*+(?:and|or)\s*+\}|\\quad|\\\(|\\\))?+[\s$,;]*+"
    r"(?:[a-z](?:_?\{?[0-9]\}?)?\s*+=\s*+)?\Z"
)
_THINKING, _THINKING_END = "<think>", "</think>"


def extract(
    response: str, *, mode: Literal["lenient", "strict"] = "lenient", read_unclosed: bool = False
) -> Extraction:
    """The answer of a response, or why there is none.

    `read_unclosed`: also of one that ends inside `<think>`, where a box is a thought and no answer.
    """
    if not response.isprintable() or "<<" in response:
        response = _without_run_on(with_commands(response))
    if _THINKING_END in response:
        response = response.rsplit(_THINKING_END, 1)[1]
    if not read_unclosed and _THINKING in response:
        return Extraction(None, "the response ends inside <think>")
    tag = _last_tag(response) if "</" in response else None
    searched = tag if tag is not None else response
    if "box" in searched and (boxed := _boxed(searched)) is not None:
        return boxed
    if tag is not None:
        return _within(tag.strip(), "the <answer> tag is empty")
    hashes = response.rfind("####")
    if hashes >= 0:
        line = response[hashes + 4 :].strip().split("\n", 1)[0].strip()
        return _within(line, "nothing follows ####")
    if "<" in response and "<answer>" in response[-MAX_TAIL_CHARS:].lower():
        return Extraction(None, "the <answer> tag is not closed")
    tail = response[-MAX_TAIL_CHARS:] if len(response) > MAX_ANSWER_CHARS else response
    if (stated := phrased(tail[-MAX_TAIL_CHARS:])) is not None:
        return stated
    if mode == "strict":
        return Extraction(None, "no box, ####, <answer> tag or answer phrase (strict mode)")
    return bare(response)


_RUN_ON = re.compile(r"\n\s*+\**+(?:Question|Problem|Q)\b\s*+[0-9]*+\**+\s*+:", re.IGNORECASE)
_CALCULATOR = re.compile(r"<<[^<>\n]*+>>")


def _without_run_on(response: str) -> str:
    """Without a further "Question:" behind an answer, and without the data set's <<2*3=6>>."""
    if "<<" in response:
        response = _CALCULATOR.sub("", response)
    if "\n" in response and ":" in response and (run_on := _RUN_ON.search(response)) is not None:
        before = response[: run_on.start()]
        if "boxed" in before or "####" in before or "</answer>" in before or phrase_ends(before):
            return before
    return response


def _within(text: str, reason_if_empty: str) -> Extraction:
    """Marked text, which may again say "the answer is ..."."""
    if not text:
        return Extraction(None, reason_if_empty)
    return (phrased(text) if "answer" in text.lower() else None) or Extraction(text)


def _last_tag(response: str) -> str | None:
    lowered = response.lower()
    end = lowered.rfind("</answer>")
    start = lowered.rfind("<answer>", 0, end)
    return response[start + len("<answer>") : end] if 0 <= start < end else None


# boxes


def _boxed(text: str) -> Extraction | None:
    """The last box, and the run of boxes that ends with it; None where "boxed" is only a word."""
    only = text.rfind("\\boxed{")
    if only >= 0 and text.count("box") == 1:
        inside, end = _box_content(text, only + len("\\boxed"))
        if inside and not inside.isspace() and "answer" not in inside.lower():
            return Extraction(inside, behind=text[end:])  # the common case: one box
    matches = list(_BOX.finditer(text))
    if not matches:
        return None
    last = matches[-1]
    content, end = _box_content(text, last.end())
    if content is None:
        return Extraction(None, "the last box is not closed")
    if not content.strip():
        return Extraction(None, "the last box is empty")
    if "box" in content and _BOX.search(content):
        return _boxed(content)
    if "answer" in content.lower() and _LABELLED.search(content):
        return _within(content, "")._replace(marked=content)
    boxes = [content]
    start = last.start()
    sentence = _boxes_of_sentence(text, matches[-20:]) if len(matches) > 1 else ()
    for match in reversed(matches[-50:-1]):
        earlier, earlier_end = _box_content(text, match.end())
        if earlier is None or earlier_end > start:
            if earlier is not None and earlier_end >= end:
                return Extraction(earlier.replace(text[last.start() : end], content))
            break
        if not _BETWEEN_BOXES.match(text[earlier_end:start]) or not text[earlier_end:start].strip(" \n$"):
            break
        boxes.insert(0, earlier)
        start = match.start()
    run = tuple(boxes) if len(boxes) > 1 else ()
    return Extraction(content, boxes=run, all_boxes=sentence, behind=text[end:])


def stated_behind(extraction: Extraction) -> str | None:
    """What an answer phrase behind the last box states; None where there is none."""
    found = phrased(extraction.behind[-MAX_TAIL_CHARS:]) if len(extraction.behind) > 4 else None
    return found.answer if found is not None else None


_LABELLED = re.compile(r"\banswer\s*(?:is\b|:)", re.IGNORECASE)
_CORRECTED = re.compile(
    r"\b(?:wait|actually|no|not|instead|or|correction|correct|mistake|sorry|hmm|but|however|so|thus|therefore|hence|then|"
    r"rather|maybe|perhaps|simplif\w+|equals?|gives?|becomes?)\b|[=?!;]|\.\s|\n\s*\n",
    re.IGNORECASE,
)


def _boxes_of_sentence(text: str, matches: list[re.Match[str]]) -> tuple[str, ...]:
    r"""The boxes of the last sentence, `\boxed{3} goats and \boxed{4} cows`; () where words take one back."""
    found: list[str] = []
    start = len(text)
    for match in reversed(matches):
        content, end = _box_content(text, match.end())
        between = text[end:start] if content is not None else ""
        if content is None or end > start:
            return ()
        if found and (len(between) > 60 or _CORRECTED.search(between)):
            break
        found.insert(0, content)
        start = match.start()
    return tuple(found) if len(found) > 1 else ()


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def _box_content(text: str, start: int) -> tuple[str | None, int]:
    r"""What a box holds from `start`: a group with balanced braces, or the next word for `\boxed 5`."""
    if start >= len(text):
        return None, start
    if text[start] != "{":
        word = re.match(r"\\?[A-Za-z0-9.+-]+", text[start:])
        return (word[0], start + word.end()) if word else (None, start)
    first = text.find("}", start)
    inside = text[start + 1 : first]
    if first >= 0 and "{" not in inside and "\\" not in inside:
        return inside, first + 1
    depth = 0
    for match in _BRACE.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : match.start()], match.end()
    return None, start
