"""The 25 kinds of IFEval (arXiv:2311.07911), under the names and arguments of its data set.

Departures from the paper's program: a response without a letter or digit follows nothing; keywords are
texts, not patterns; a sentence ends as `texts.sentences` says; capitals are counted in words of our own
cut; the language of a text in capitals is detected in small letters.
"""

import json
import re
from collections.abc import Callable, Mapping

from verl_lite.verifiers.instructions.language import detect_language
from verl_lite.verifiers.instructions.texts import Arguments, count_words, sentences

Check = Callable[[str, Arguments], bool]
_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def _word_count(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _occurrences(text: str, part: str) -> int:
    return text.lower().count(part.lower())


def _paragraphs(text: str, args: Arguments) -> bool:
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    first, last = not parts[0], len(parts) > 1 and not parts[-1]
    parts = parts[first : len(parts) - last]
    return all(parts) and len(parts) == args.number("num_paragraphs")


def _nth_paragraph(text: str, args: Arguments) -> bool:
    parts = [part.strip() for part in re.split(r"\n\n", text) if part.strip()]
    at = args.number("nth_paragraph")
    if len(parts) != args.number("num_paragraphs") or not 1 <= at <= len(parts):
        return False
    word = re.match(r"\W*([\w'’-]+)", parts[at - 1])
    return word is not None and word[1].lower() == args.text("first_word").lower()


def _bullets(text: str, args: Arguments) -> bool:
    found = re.findall(r"^[ \t]*(?:\*(?!\*)|-)[ \t]*\S.*$", text, re.MULTILINE)
    return len(found) == args.number("num_bullets")


def _highlights(text: str, args: Arguments) -> bool:
    double = re.findall(r"\*\*([^\n*]+)\*\*", text)
    single = re.findall(r"\*([^\n*]+)\*", re.sub(r"\*\*[^\n*]+\*\*", "", text))
    return sum(bool(part.strip()) for part in [*double, *single]) >= args.number("num_highlights")


def _sections(text: str, args: Arguments) -> bool:
    mark = re.escape(args.text("section_spliter").strip())
    return len(re.findall(rf"\s?{mark}\s?\d+", text)) >= args.number("num_sections")


def _postscript(text: str, args: Arguments) -> bool:
    marker = args.text("postscript_marker")
    # P.S. is also written P. S., p.s or ps:
    letters = {"P.P.S": "pps", "P.S.": "ps"}.get(marker)
    found = r"\.?\s?".join(letters) if letters else re.escape(marker.lower())
    return re.search(rf"(?<!\w){found}(?!\w)\W*\w", text.lower()) is not None


def _is_json(text: str, args: Arguments) -> bool:
    block = re.fullmatch(r"\s*```(?:json)?\s*\n?(.*?)```\s*", text, re.DOTALL | re.IGNORECASE)
    try:
        json.loads(block[1] if block else text)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str, args: Arguments) -> bool:
    parts = [part.strip() for part in text.split("******")]
    parts = parts[not parts[0] : len(parts) - (not parts[-1])]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _ends_with(text: str, args: Arguments) -> bool:
    return text.strip().strip('"').lower().rstrip().endswith(args.text("end_phrase").strip().lower())


def _capital_words(text: str, args: Arguments) -> bool:
    words = re.findall(r"[^\W_][\w'’.-]*", text)
    return args.holds(sum(word.isupper() for word in words), "capital_frequency", "capital_relation")


def _quoted(text: str, args: Arguments) -> bool:
    text = text.strip()
    return len(text) > 2 and text[0] == text[-1] == '"'


IFEVAL: Mapping[str, Check] = {
    "keywords:existence": lambda t, a: all(_occurrences(t, word) for word in a.texts("keywords")),
    "keywords:frequency": lambda t, a: a.holds(_occurrences(t, a.text("keyword")), "frequency", "relation"),
    "keywords:forbidden_words": lambda t, a: not any(_word_count(t, w) for w in a.texts("forbidden_words")),
    "keywords:letter_frequency": lambda t, a: a.holds(
        _occurrences(t, a.text("letter")), "let_frequency", "let_relation"
    ),
    "language:response_language": lambda t, a: detect_language(t) in (a.text("language"), ""),
    "length_constraints:number_sentences": lambda t, a: a.holds(
        len(sentences(t)), "num_sentences", "relation"
    ),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda t, a: a.holds(count_words(t), "num_words", "relation"),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda t, a: (
        len(re.findall(r"\[.*?\]", t)) >= a.number("num_placeholders")
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda t, a: any(answer in t for answer in _ANSWERS),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda t, a: any(
        part.strip(" <>") for part in re.findall(r"<<([^\n]+?)>>", t)
    ),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda t, a: (
        t.strip().lower().startswith(a.text("prompt_to_repeat").strip().lower())
    ),
    "startend:end_checker": _ends_with,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda t, a: t.isupper() and detect_language(t) in ("en", ""),
    "change_case:english_lowercase": lambda t, a: t.islower() and detect_language(t) in ("en", ""),
    "punctuation:no_comma": lambda t, a: "," not in t,
}
