"""What the prose of a response states: an answer phrase, the final sentence, a bare final expression."""

import re
from typing import NamedTuple

from verl_lite.verifiers.math.reading.chinese import is_east_asian, only_number

MAX_TAIL_CHARS = 4000  # phrases and bare answers are searched at the end


class Extraction(NamedTuple):
    """`answer` is None if there is none; `reason` then says why. `boxes` holds the boxes of a final run
    joined only by commas and "and", for references that are lists; `all_boxes` those of the last sentence,
    whatever words stand between them. `behind` is the text after the last box; `marked` is all of a box that
    says "the answer is" again, or of a sentence that begins with yes or no."""

    answer: str | None
    reason: str = ""
    boxes: tuple[str, ...] = ()
    all_boxes: tuple[str, ...] = ()
    behind: str = ""
    marked: str = ""


# Quantifiers that could share a run of blanks are possessive, here and below: linear time for any text.
_PHRASE = re.compile(
    r"(?<![A-Za-z])(?:(?:answers?|result|solution)\b['\"]?+(?:\s+\w+){0,4}?\s*+"
    r"(?:\*\*\s*+)?+(?:\bis\b|\bare\b|\bequals\b|\bwould be\b|\bwill be\b|:|=|：)"
    r"(?:\s*+(?:\*\*\s*+)?+[:：])?+\s*+(?:\*\*)?"
    r"|answer\s*+(?=\$|\\\[|\\\())"
    r"|(?:答案|答え|正解|정답|답|ответ|respuesta|resposta|réponse|antwort|risposta)"
    r"\s*+(?:是|为|為|は|은|는|est|es|ist|é|è)?+\s*+[:：]?+\s*+(?:\*\*)?|(?<![\u4e00-\u9fff])答\s*+[:：]\s*+"
    r"|选(?:项|择)?+\s*+(?:是|为)?+\s*+[:：]?+\s*+(?=[(（*]*[A-J])"
    r"|^[^\S\n]*+\**+(?:A|Ans)\**+\s*+[:.]\s*+\**",
    re.IGNORECASE | re.MULTILINE,
)
# What a phrase can begin with, in lower case: cheap to find, so that _PHRASE is tried in a few places only.
_MARK = re.compile(
    r"answer|res(?:ult|puesta|posta)|solution|antwort|risposta|réponse|ответ|答|正解|정답|답|选"
    r"|\n(?=[^\S\n]*+\**+a)|a(?=\**+(?:ns\**+)?+\s*+[:.])"
)
_UNSURE = "either|maybe|perhaps|possibly|not sure|one of"
_HEDGE = re.compile(rf"\b(?:{_UNSURE}|or|could be|might be|may be|between)\b", re.IGNORECASE)
_UNDECIDED = re.compile(rf"(?:{_UNSURE}|probably\s+either|unclear)\b", re.IGNORECASE)
_MATH_SPAN = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])[-−]?[$€£]?\s?(?:[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+|[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:\s?[%°]|\s*/\s*[0-9]+)?(?![0-9A-Za-z])"
)
_SENTENCE_END = re.compile(
    r"(?<=[^A-Z0-9.\s])[.?](?=\s+[A-Z$\\]|\s*\Z)|。|(?<=[a-z]{3})!(?=\s|\Z)|(?<=[0-9}$)])\.(?=\s+[A-Z\\]|\s*\Z)|\n"
)
_TRAILING_CLAUSE = re.compile(
    r"[,;]?\s+(?:because|since|as\s+(?:required|desired|claimed)|which|so\s+that|where|for\s+(?:all|any|the)|"
    r"when|if|by\s|in\s+total|altogether|as\s+we|per\s+the|according|this|that)\b",
    re.IGNORECASE,
)
_SAYS = re.compile(r"[\w\\({\[<\u00a0-\uffff]")


def phrase_ends(text: str) -> list[int]:
    """Where what follows each answer phrase begins, the last first."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter whose small form is two
        return [phrase.end() for phrase in _PHRASE.finditer(text)][::-1]
    starts = [mark.end() if mark[0] == "\n" else mark.start() for mark in _MARK.finditer(lowered)]
    if lowered[:1] == "*" or lowered[:1].isspace():
        starts.insert(0, 0)
    ends = [0]
    for start in starts:
        if start >= ends[-1] and (phrase := _PHRASE.match(text, start)):
            ends.append(phrase.end())
    return ends[:0:-1]


def phrased(text: str) -> Extraction | None:
    for end in phrase_ends(text):
        sentence = _first_sentence(text[end:].strip().lstrip("}*:").strip())
        if _SAYS.search(sentence):
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
    if text.startswith(("\\[", "$$")) and (span := _MATH_SPAN.match(text)) is not None:
        return str(next(filter(None, span.groups())))
    end = _SENTENCE_END.search(text)
    return (text[: end.start()] if end else text).strip()


def _stated(sentence: str) -> Extraction:
    """What "the answer is ..." states, without the clauses behind it."""
    sentence = " ".join(sentence.split()).strip("* ")
    if (number := only_number(sentence)) is not None:
        return Extraction(number)
    leads_in = sentence[:1].isalpha()  # a bare number or formula has nothing to drop in front
    if leads_in and (within := _WITHIN_STATEMENT.match(sentence)) is not None:
        sentence = within[1]  # Final Answer: The largest n is 34
    if leads_in and _UNDECIDED.match(sentence):
        return Extraction(None, "several answers are offered")
    if " " in sentence:
        sentence = _without_clause(sentence)
    if leads_in:
        sentence = _SPELLED.sub("", _FILLER.sub("", sentence))
    return Extraction(sentence) if sentence else Extraction(None, "the answer phrase states nothing")


def _without_clause(sentence: str) -> str:
    """Without the first clause that begins outside formulas and brackets."""
    for clause in _TRAILING_CLAUSE.finditer(sentence):
        before = sentence[: clause.start()]
        is_outside = before.count("{") <= before.count("}") and before.count("\\(") <= before.count("\\)")
        if before and is_outside and before.replace("\\$", "").count("$") % 2 == 0:
            return before
    return sentence


_ENDS_IN_MATH = re.compile(r"[A-Z][a-z]+\b[^$]*\$[^$]+\$\W*\Z")


def bare(response: str) -> Extraction:
    text = response.strip()
    chosen = _CHOSEN_LAST.search(text) if len(text) <= 40 else None
    if chosen is not None and not _HEDGE.search(text) and not _DENIED.search(text):
        return Extraction(chosen[1])
    if not text:
        return Extraction(None, "the response is empty")
    is_short = len(text) <= 200 and "\n" not in text and not is_east_asian(text)
    if is_short and not _is_sentence(text) and not _ENDS_IN_MATH.match(text):
        return Extraction(_after_equals(text))
    if len(text) > MAX_TAIL_CHARS and " " not in text[-MAX_TAIL_CHARS:] and "\n" not in text:
        return Extraction(text)
    lines = [line.strip() for line in text[-MAX_TAIL_CHARS:].split("\n")]
    line = next((line for line in reversed(lines) if line and not line.startswith("```")), "")
    if len(line) > 6 and (number := only_number(line)) is not None:
        return Extraction(number)
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
    opens_one = re.match(r"(?:so|thus|there|therefore|hence|we|it|the|this|s?he|they|i|that)\b", text, re.I)
    num_words = (2 if "$" in text else 3) if opens_one else 5
    return len(words) >= num_words or _HEDGE.match(text) is not None


def is_solution(reference: str) -> bool:
    """Whether a reference is a whole solution, or a sentence that says what the answer is."""
    if len(reference) < 12 or " " not in reference:
        return False
    if "answer" in reference.lower() and phrase_ends(reference[-MAX_TAIL_CHARS:]):
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
    found = _single_answer(sentence)
    if re.match(r"(?:yes|no)\s*[,.;!—–-]", sentence, re.IGNORECASE):
        return Extraction(found.answer or sentence, marked=sentence)
    return found


def _single_answer(sentence: str) -> Extraction:
    if (result := _MONEY_RESULT.search(sentence)) is not None:
        return Extraction(result[1])
    if _HEDGE.search(re.sub(r"\\text\{[^{}]*\}", " ", sentence)):
        return Extraction(None, "the response hedges between answers")
    if _CONDITION.search(sentence) and re.search(r"\b(?:is|are|has|have)\s+no\b", sentence):
        return Extraction(None, "there is none under a condition only")
    is_denied = _DENIED.search(sentence) is not None
    if not is_denied and (chosen := _chosen(sentence)) is not None:
        return chosen
    spans = list(_MATH_SPAN.finditer(sentence))
    after = _AFTER_VERB.match(_MATH_SPAN.sub(lambda span: "$" * len(span[0]), sentence))
    stated = sentence[after.start(1) :] if after is not None else ""
    if spans and not stated.startswith(("$", "\\(")) and (number := _NUMBER_STATED.match(stated)) is not None:
        stated, spans, sentence = number[1], [], number[1]  # the smallest such $n$ is 12
    if len(spans) == 1 or (spans and stated.startswith(("$", "\\("))):
        return Extraction(next(filter(None, spans[-1].groups())))
    numbers = _NUMBER.findall(sentence)
    if not spans and len(numbers) == 1:
        before = sentence.split(numbers[0], 1)[0]
        if _BOUNDED.search(before) or _SUPPOSED.match(before):
            return Extraction(None, "the response bounds or denies a number")
        name = "" if is_denied or _NUMBER.search(stated) else stated  # in 100 days it is Monday
        return Extraction(_with_unit(sentence, numbers[0]), marked=_AROUND_NAME.sub("", name))
    if stated and not _is_sentence(stated):
        return Extraction(re.sub(r"^(?:at|just|then|about|approximately|exactly)\s+", "", stated))
    if stated and not spans and len(inner := _NUMBER.findall(stated)) == 1:
        return Extraction(_with_unit(stated, inner[0]))
    if not spans and numbers and "=" in sentence:
        return Extraction(numbers[-1])
    return Extraction(None, "the response does not end with a single answer")


def _chosen(sentence: str) -> Extraction | None:
    """The choice that a sentence names, or that there is no solution."""
    letters = sorted(set(_CHOSEN.findall(sentence)))
    if len(letters) > 1:
        return Extraction(None, "several choices are offered")
    if letters:
        return Extraction(letters[0])
    if (with_text := _CHOSEN_TEXT.search(sentence)) is not None:
        return Extraction(with_text[1])
    return Extraction("no solution") if _HAS_NONE.search(sentence) else None


_AFTER_VERB = re.compile(
    r".*(?:\bis\b|\bare\b|\bequals\b|=|\bget\b|\bgives\b|\bbe\b|:)\s*(.+?)$", re.IGNORECASE | re.DOTALL
)
_NUMBER_STATED = re.compile(rf"({_NUMBER.pattern}(?:\s+[a-z][a-z ]{{0,30}})?)(?=\W*\Z|,\s+[a-z])")
_BOUNDED = re.compile(  # what stands before the number
    r"(?:\bnot|n't(?:\s+\w+)?|\b(?:do|does|did|will|can|would|could)\s+not\s+\w+|\bcannot be"
    r"|\bat (?:least|most)|\b(?:more|less|fewer|greater) than|\bup to)\s+\Z",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(r"(?:if|unless|suppose)\b[^,]*\Z", re.IGNORECASE)
_AROUND_NAME = re.compile(r"\A(?:an?|the|on)\s+|[.!]\Z")
# "... $200,000 - $130,000 = $70,000": dollar signs before numbers, and no formula between two of them.
_MONEY_RESULT = re.compile(
    r"\$[0-9][0-9,.]*[^$=\\]*[-+*/x×÷][^=\\]*=\s*(\$[0-9][0-9,]*(?:\.[0-9]+)?)(?![0-9])[^$=]{0,40}\Z"
)
_CHOSEN = re.compile(
    r"\b(?:(?:option|choice|statement)\s+)?(?-i:\(?([A-J])\)?)\s+is\s+(?:the\s+)?(?:correct|right|best)\b",
    re.I,
)
_CHOSEN_TEXT = re.compile(r"\b(?:option|choice)\s+is:?\s+\**(\(?[A-J][).:]\s*[^\s].*?)\**\Z")
_CHOSEN_LAST = re.compile(r"\b(?:choose|pick|select|option|choice)\s+\(?([A-J])\)?\s*[.]?\Z")
_HAS_NONE = re.compile(
    r"\b(?:has|have|there (?:is|are))\s+no\s+(?:real\s+|integer\s+)?(?:solutions?|roots?)\s*[.]?\Z", re.I
)
_CONDITION = re.compile(r"\b(?:if|when|whenever|unless|provided)\s+(?!we\b|you\b|one\b)", re.I)
_ASIDE = re.compile(
    r"\s*\((?=[^()]*[a-z]{3})[^()]*+\)\s*+(?=\W*\Z)|,?\s+or\s+(?:about|approximately|roughly|equivalently)\b.*\Z",
    re.DOTALL,
)


def _with_unit(sentence: str, number: str) -> str:
    """The number with the word behind it, which may be its unit."""
    rest = sentence.split(number, 1)[1]
    word = re.match(r"\s*(?:million|billion|thousand|square|cubic)?\s*[A-Za-z/^0-9]{1,20}", rest)
    if word is None or re.match(
        r"\s*(?:in|and|as|of|for|is|at|on|to|by|a|such|that|which|possible|different|distinct|valid)\b",
        word[0],
    ):
        return number.strip()
    return (number + word[0]).strip()
