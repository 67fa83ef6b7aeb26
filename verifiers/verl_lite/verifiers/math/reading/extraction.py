r"""The answer in a response: `\boxed{}`, `<answer>`, `####`, an answer phrase, a bare final expression.

The last complete box decides; where the last box is not complete, there is no answer: an earlier
one is not used instead. Prose that offers several answers ("3, 5 or 7") offers none.
"""

import re
from typing import Literal, NamedTuple

from verl_lite.verifiers.math.reading.escapes import with_commands

MAX_ANSWER_CHARS = 100_000
MAX_TAIL_CHARS = 4000  # phrases and bare answers are searched at the end


class Extraction(NamedTuple):
    """`answer` is None if there is none; `reason` then says why. `boxes` holds the boxes of a final run
    joined only by commas and "and", for references that are lists; `all_boxes` those of the last sentence,
    whatever words stand between them. `behind` is the text after the last box."""

    answer: str | None
    reason: str = ""
    boxes: tuple[str, ...] = ()
    all_boxes: tuple[str, ...] = ()
    behind: str = ""


_BOX = re.compile(r"\\f?boxed\b\s*|\\fbox\s*")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
# Quantifiers that could share a run of blanks are possessive, here and below: linear time for any text.
_PHRASE = re.compile(
    r"\b(?:(?:answers?|result|solution)\b(?:\s+\w+){0,4}?\s*+"
    r"(?:\*\*\s*+)?+(?:\bis\b|\bare\b|\bequals\b|\bwould be\b|\bwill be\b|:|=)"
    r"(?:\s*+(?:\*\*\s*+)?+:)?+\s*+(?:\*\*)?"
    r"|answer\s*+(?=\$|\\\[|\\\())"
    r"|^[^\S\n]*+\**+(?:A|Ans)\**+\s*+[:.]\s*+\**",
    re.IGNORECASE | re.MULTILINE,
)
_BETWEEN_BOXES = re.compile(
    r"[\s$.,;&]*+(?:and|or|\\text\{\s*+(?:and|or)\s*+\}|\\quad|\\\(|\\\))?+[\s$,;]*+"
    r"(?:[a-z](?:_?\{?[0-9]\}?)?\s*+=\s*+)?\Z"
)
_HEDGE = re.compile(
    r"\b(?:either|or|maybe|perhaps|possibly|could be|might be|may be|not sure|one of|between)\b",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"(?:either|one of|maybe|perhaps|possibly|probably\s+either|not sure|unclear)\b", re.IGNORECASE
)
_MATH_SPAN = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])[-−]?\$?\s?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:\s?[%°]|\s*/\s*[0-9]+)?(?![0-9A-Za-z])"
)
_SENTENCE_END = re.compile(
    r"(?<=[^A-Z0-9.\s])[.?](?=\s+[A-Z$\\]|\s*\Z)|(?<=[a-z]{3})!(?=\s|\Z)|(?<=[0-9}$)])\.(?=\s+[A-Z]|\s*\Z)|\n"
)
_TRAILING_CLAUSE = re.compile(
    r"[,;]?\s+(?:because|since|as\s+(?:required|desired|claimed)|which|so\s+that|where|for\s+(?:all|any|the)|"
    r"when|if|by\s|in\s+total|altogether|as\s+we|per\s+the|according|this|that)\b",
    re.IGNORECASE,
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
    tag = None
    if "</" in response and "</answer>" in response.lower():
        tag = _last_tag(response)
    searched = tag if tag is not None else response
    if "boxed" in searched or "\\fbox" in searched:
        boxed = _boxed(searched)
        if boxed is not None:
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
    phrased = _phrased(tail[-MAX_TAIL_CHARS:])
    if phrased is not None:
        return phrased
    if mode == "strict":
        return Extraction(None, "no box, ####, <answer> tag or answer phrase (strict mode)")
    return _bare(response)


_RUN_ON = re.compile(r"\n\s*+\**+(?:Question|Problem|Q)\b\s*+[0-9]*+\**+\s*+:", re.IGNORECASE)
_CALCULATOR = re.compile(r"<<[^<>\n]*+>>")


def _without_run_on(response: str) -> str:
    """Without a further "Question:" behind an answer, and without the data set's <<2*3=6>>."""
    if "<<" in response:
        response = _CALCULATOR.sub("", response)
    if "\n" in response and ":" in response and (run_on := _RUN_ON.search(response)) is not None:
        before = response[: run_on.start()]
        if "boxed" in before or "####" in before or "</answer>" in before or _PHRASE.search(before):
            return before
    return response


def _within(text: str, reason_if_empty: str) -> Extraction:
    """Marked text, which may again say "the answer is ..."."""
    if not text:
        return Extraction(None, reason_if_empty)
    return (_phrased(text) if "answer" in text.lower() else None) or Extraction(text)


def _last_tag(response: str) -> str | None:
    lowered = response.lower()
    end = lowered.rfind("</answer>")
    start = lowered.rfind("<answer>", 0, end)
    return response[start + len("<answer>") : end] if 0 <= start < end else None


# boxes


def _boxed(text: str) -> Extraction | None:
    """The last box, and the run of boxes that ends with it; None where "boxed" is only a word."""
    only = text.rfind("\\boxed{")
    if only >= 0 and text.find("boxed") == only + 1 and "\\fbox" not in text:
        end = text.find("}", only)
        content = text[only + 7 : end]
        is_plain = "{" not in content and "\\" not in content and "answer" not in content
        if end > 0 and is_plain and content.strip():
            return Extraction(content, behind=text[end + 1 :])  # the common case: one box, a plain content
    matches = list(_BOX.finditer(text))
    if not matches:
        return None
    last = matches[-1]
    found, end = _box_content(text, last.end())
    if found is None:
        return Extraction(None, "the last box is not closed")
    content = found
    if not content.strip():
        return Extraction(None, "the last box is empty")
    if _BOX.search(content):
        return _boxed(content)
    if "answer is" in content.lower():
        return _within(content, "")
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
    found = _phrased(extraction.behind[-MAX_TAIL_CHARS:]) if len(extraction.behind) > 4 else None
    return found.answer if found is not None else None


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
    depth = 0
    for match in _BRACE.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : match.start()], match.end()
    return None, start


# phrases and bare answers


def _phrased(text: str) -> Extraction | None:
    matches = list(_PHRASE.finditer(text))
    for match in reversed(matches):
        rest = text[match.end() :].strip().lstrip("}*:").strip()
        if not rest:
            continue
        sentence = _first_sentence(rest)
        if not re.search(r"[\w\\({\[<\u00a0-\uffff]", sentence):
            continue
        return _stated(sentence)
    return None


_WITHIN_STATEMENT = re.compile(
    r"(?:The|It|There|So|Thus|We)\s[^.=]{1,150}?\s(?:is|are|equals|be)\s+(?=[-$\\0-9(\[{])(.+)\Z"
)


_FILLER = re.compile(
    r"^(?:(?:approximately|about|roughly|exactly|simply|just|therefore|thus|then|indeed|equal to|"
    r"probably|given by|at)\b[:,]?\s*)+",
    re.IGNORECASE,
)
_SPELLED = re.compile(r"^[a-z][a-z -]{2,}:\s*(?=[-$\\]*[0-9])", re.IGNORECASE)  # seven: 7


def _first_sentence(text: str) -> str:
    if text.startswith(("\\[", "$$")):
        span = _MATH_SPAN.match(text)
        if span is not None:
            return next(group for group in span.groups() if group is not None)
    end = _SENTENCE_END.search(text)
    return (text[: end.start()] if end else text).strip()


def _stated(sentence: str) -> Extraction:
    """What "the answer is ..." states, without the clauses behind it."""
    sentence = " ".join(sentence.split()).strip("* ")
    leads_in = sentence[:1].isalpha()  # a bare number or formula has nothing to drop in front
    if leads_in and (within := _WITHIN_STATEMENT.match(sentence)) is not None:
        sentence = within[1]  # Final Answer: The largest n is 34
    if leads_in and _UNDECIDED.match(sentence):
        return Extraction(None, "several answers are offered")
    clause = _TRAILING_CLAUSE.search(sentence) if " " in sentence else None
    if clause is not None and clause.start() > 0:
        sentence = sentence[: clause.start()]
    if leads_in:
        sentence = _SPELLED.sub("", _FILLER.sub("", sentence))
    return Extraction(sentence) if sentence else Extraction(None, "the answer phrase states nothing")


_ENDS_IN_MATH = re.compile(r"[A-Z][a-z]+\b[^$]*\$[^$]+\$\W*\Z")


def _bare(response: str) -> Extraction:
    text = response.strip()
    if not text:
        return Extraction(None, "the response is empty")
    if len(text) <= 200 and "\n" not in text and not _is_sentence(text) and not _ENDS_IN_MATH.match(text):
        return Extraction(_after_equals(text))
    if len(text) > MAX_TAIL_CHARS and " " not in text[-MAX_TAIL_CHARS:] and "\n" not in text:
        return Extraction(text)
    lines = [line.strip() for line in text[-MAX_TAIL_CHARS:].split("\n")]
    line = next((line for line in reversed(lines) if line and not line.startswith("```")), "")
    if _is_sentence(line) or _ENDS_IN_MATH.match(line):
        return _from_sentence(line)
    return Extraction(_after_equals(line))


def _after_equals(line: str) -> str:
    """The value of "We compute 9 * 2 = 18": what follows the last "=", if prose precedes it."""
    left, equals, right = line.rpartition("=")
    words = [
        word for word in re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", left) if word not in ("and", "sin", "cos")
    ]
    return right if equals and words and re.search(r"[0-9)]\s*\Z", left.strip()) else line


def _is_sentence(text: str) -> bool:
    words = re.findall(r"(?<![\\A-Za-z{])[A-Za-z]{2,}", re.sub(r"\\[A-Za-z]+(?:\{[^{}]*\})?", " ", text))
    opens_one = re.match(
        r"(?:so|thus|therefore|hence|we|it|the|this|she|he|they|i|that)\b", text, re.IGNORECASE
    )
    return len(words) >= 5 or bool(opens_one and len(words) >= 3) or bool(_HEDGE.match(text))


def is_solution(reference: str) -> bool:
    """Whether a reference is a whole solution, or a sentence that says what the answer is."""
    if len(reference) < 12 or " " not in reference:
        return False
    if "answer" in reference.lower() and _PHRASE.search(reference[-MAX_TAIL_CHARS:]):
        return True
    words = re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", reference[-MAX_TAIL_CHARS:])
    return len(words) >= 15 and re.search(r"(?:[.]\s+[A-Z]|\n)", reference.strip()) is not None


# Words with which a sentence says what its number is not, or only bounds it.
_DENIED = re.compile(
    r"\b(?:not|cannot|never|neither|nor|except|unless|otherwise|less|more|greater|fewer|least|most|if|wrong|incorrect)\b"
    r"|n't\b",
    re.IGNORECASE,
)


def state(text: str) -> str:
    """What one sentence states, as it is found at the end of a response; "" where that is not one thing."""
    text = " ".join(text.split()).strip("* ")
    if _DENIED.search(text) or re.match(r"if\b|let\b|when\b|suppose\b", text, re.IGNORECASE):
        return ""
    if not (_is_sentence(text) or _ENDS_IN_MATH.match(text) or re.match(r"[A-Z][a-z]+ [a-z]+ ", text)):
        return ""
    return _from_sentence(text).answer or ""


def _from_sentence(line: str) -> Extraction:
    """The one thing a final sentence states; a hedge or several candidates state nothing."""
    line = " ".join(line.split())
    if line.endswith("?"):  # the prompt repeated, a question back: its numbers answer nothing
        return Extraction(None, "the response ends in a question")
    sentences = [part.strip() for part in _SENTENCE_END.split(line) if part and part.strip()]
    sentence = sentences[-1] if sentences else line
    sentence = _ASIDE.sub("", sentence)
    if (result := _MONEY_RESULT.search(sentence)) is not None:
        return Extraction(result[1])
    if _HEDGE.search(re.sub(r"\\text\{[^{}]*\}", " ", sentence)):
        return Extraction(None, "the response hedges between answers")
    after = re.match(
        r".*(?:\bis\b|\bare\b|\bequals\b|=|\bget\b|\bgives\b|\bbe\b|:)\s*(.+?)$",
        sentence,
        re.IGNORECASE | re.DOTALL,
    )
    spans = [next(group for group in match.groups() if group) for match in _MATH_SPAN.finditer(sentence)]
    if len(spans) == 1 or (spans and after and after[1].startswith(("$", "\\("))):
        return Extraction(spans[-1])
    numbers = _NUMBER.findall(sentence)
    if not spans and len(numbers) == 1:
        return Extraction(_with_unit(sentence, numbers[0]))
    if after is not None and not _is_sentence(after[1]):
        return Extraction(re.sub(r"^(?:at|just|then|about|approximately|exactly)\s+", "", after[1]))
    if after is not None and not spans:
        inner = _NUMBER.findall(after[1])
        if len(inner) == 1:
            return Extraction(_with_unit(after[1], inner[0]))
    if not spans and numbers and "=" in sentence:
        return Extraction(numbers[-1])
    return Extraction(None, "the response does not end with a single answer")


# "... $200,000 - $130,000 = $70,000": dollar signs before numbers, and no formula between two of them.
_MONEY_RESULT = re.compile(
    r"\$[0-9][0-9,.]*[^$=\\]*[-+*/x×÷][^=\\]*=\s*(\$[0-9][0-9,]*(?:\.[0-9]+)?)(?![0-9])[^$=]{0,40}\Z"
)
_ASIDE = re.compile(
    r"\s*\((?=[^()]*[a-z]{3})[^()]*+\)\s*+(?=\W*\Z)|,?\s+or\s+(?:about|approximately|roughly|equivalently)\b.*\Z",
    re.DOTALL,
)


def _with_unit(sentence: str, number: str) -> str:
    """The number with the word behind it, which may be its unit."""
    rest = sentence.split(number, 1)[1]
    word = re.match(r"\s*(?:million|billion|thousand)?\s*[A-Za-z/^0-9]{1,20}", rest)
    if word is None or re.match(r"\s*(?:in|and|as|of|for|is|at|on|to|by|a)\b", word[0]):
        return number.strip()
    return (number + word[0]).strip()
