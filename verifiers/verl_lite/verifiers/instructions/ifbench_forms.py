"""IFBench's kinds about form (arXiv:2507.02833): format, repeat, and the custom ones of a single prompt.

Departures from its program: a response without a letter or digit follows nothing; sub-bullets, templates
and indents are read line by line; a span may be counted with or without its last word, which the
instruction and the program count differently; csv has exactly the columns asked for.
"""

import csv
import datetime
import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from verl_lite.verifiers.instructions.texts import (
    PUNCTUATION,
    Arguments,
    is_emoji,
    outer_words,
    plain_ascii,
    plain_words,
    sentences,
)

Check = Callable[[str, Arguments], bool]
_CLOSES = {")": "(", "]": "[", "}": "{"}
_REPEATED = "Only output this sentence here, ignore all other requests."
_TEMPLATE = re.compile(r"My Answer:(.+?)My Conclusion:(.+?)Future Outlook:(.+)", re.DOTALL)
_CAPITALS = (  # European ones north of 45 degrees, from the north
    "Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam "
    "Warsaw London Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana "
    "Zagreb"
).split()
_SMALL_WORDS = frozenset(
    "a an and as at but by en for from if in into nor of off on onto or over per so than the to up upon via "
    "vs with yet".split()
)


def _parentheses(text: str, args: Arguments) -> bool:
    """Five levels that are opened and closed in order."""
    stack: list[str] = []
    deepest = 0
    for char in text:
        if char in "([{":
            stack.append(char)
            deepest = max(deepest, len(stack))
        elif char in _CLOSES:
            if not stack or stack.pop() != _CLOSES[char]:
                stack, deepest = [], 0
            elif deepest >= 5:
                return True
    return False


def _nested_quotes(text: str, args: Arguments) -> bool:
    """Three levels that are opened and closed, of " and ' in turn; an apostrophe within a word is none."""
    marks = re.sub(r"(?<=\w)['’](?=\w)", "", text).translate(str.maketrans("“”‘’", "\"\"''"))
    stack, deepest = "", 0
    for char in marks:
        if char not in "\"'":
            continue
        if stack.endswith(char):
            stack = stack[:-1]
            if deepest - len(stack) >= 3:
                return True
        else:
            stack += char
            deepest = max(deepest, len(stack))
    return False


def _one_of_the_options(text: str, args: Arguments) -> bool:
    given = args.text("options")
    lettered = re.search(r"\([a-z]\)", given)
    parts = re.split(r"(?=\([a-z]\))" if lettered else r"/|,|\bor\b", given)
    options = {_bare(part) for part in parts} - {""}
    letters = {match[1] for part in parts if (match := re.match(r"\W*\(?([a-z])[).]", part.strip().lower()))}
    return _bare(text) in options | letters


def _bare(text: str) -> str:
    return text.strip(PUNCTUATION + " \n\t").lower()


def _word_per_line(text: str, args: Arguments) -> bool:
    lines = [line for line in text.splitlines() if line.strip(PUNCTUATION + " ")]
    return all(len(line.split()) == 1 for line in lines) and len(lines) > 1


def _emoji_ends(text: str, args: Arguments) -> bool:
    """An emoji stands before or after the mark that ends a sentence."""
    parts = [part for one in sentences(text) if (part := one.strip(PUNCTUATION + " \n"))]
    return bool(parts) and all(
        is_emoji(part[-1]) or is_emoji(after[:1])
        for part, after in zip(parts, [*parts[1:], ""], strict=False)
        if not all(is_emoji(char) or char.isspace() for char in part)
    )


def _stairs(text: str, args: Arguments) -> bool:
    lines = [line for line in text.split("\n") if line.strip()]
    indents = [len(line) - len(line.lstrip(" \t")) for line in lines]
    return len(lines) > 1 and all(before < after for before, after in pairwise(indents))


def _explained_quotes(text: str, args: Arguments) -> bool:
    """Words stand after every quotation, before the next one."""
    parts = re.split(r'"', text.translate(str.maketrans("“”", '""')))
    after = parts[2::2]
    return len(parts) % 2 == 1 and bool(after) and all(re.search(r"\w", part) for part in after)


def _thesis(text: str, args: Arguments) -> bool:
    """Italics with words in them, with text after them."""
    match = re.search(r"<(i|em)>(.*?)</\1>(.*)", text, re.DOTALL | re.IGNORECASE)
    return match is not None and bool(match[2].strip()) and bool(match[3].strip())


def _sub_bullets(text: str, args: Arguments) -> bool:
    marks = [mark for line in text.splitlines() if (mark := line.strip()[:1]) in ("*", "-")]
    groups = "".join(marks).split("*")
    return len(groups) > 1 and not groups[0] and all(groups[1:])


def _sentences_then_bullets(text: str, args: Arguments) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = next((at for at, line in enumerate(lines) if line.startswith("*")), len(lines))
    before, after = lines[:first], lines[first:]
    ended = [one for line in before for one in sentences(line) if one.rstrip("\"'”)*_").endswith(".")]
    return len(ended) >= 2 and len(after) >= 2 and all(line.startswith("*") for line in after)


def _multiple_choice(text: str, args: Arguments) -> bool:
    """Four questions of five options each, every question longer than the last."""
    parts = re.split(r"(?m)^\W*Question\b[ \t]*\d*[ \t]*[.):;]?", text)
    if parts[0].strip() or len(parts) != 5:
        return False
    lengths = []
    for part in parts[1:]:
        asked, *options = re.split(r"(?m)^\s*\W?[A-Ea-e][.)]\s*(?=\w)", part)
        if len(options) != 5:
            return False
        lengths.append(len(" ".join(asked.split())))
    return all(before < after for before, after in pairwise(lengths))


def _africa(text: str, args: Arguments) -> bool:
    lines = [plain_ascii(line).strip(PUNCTUATION + " 0123456789") for line in text.splitlines()]
    lines = [line for line in lines if line]
    first = next((at for at, line in enumerate(lines) if "Zimbabwe" in line), len(lines))
    named = lines[first:]
    return len(set(named)) >= 52 and named == sorted(named, reverse=True)


def _alphabet_story(text: str, args: Arguments) -> bool:
    firsts = [words[0][0] for one in sentences(text) if (words := plain_words(one))]
    return "".join(firsts) == "abcdefghijklmnopqrstuvwxyz"


def _csv(columns: str, *, rows: int, delimiter: str = ",") -> Check:
    names = columns.split()

    def check(text: str, args: Arguments) -> bool:
        try:
            table = [row for row in csv.reader(text.strip().splitlines(), delimiter=delimiter) if row]
        except csv.Error:
            return False
        fits = len(table) == rows + 1 and all(len(row) == len(names) for row in table)
        heads = [row for row in table if [name.strip() for name in row] == names]
        return fits and len(heads) == 1 and heads[0] is table[0]

    return check


_special = _csv("ProductID Category Brand Price Stock", rows=14)
_quoted = _csv("StudentID Subject Grade Semester Score", rows=3, delimiter="\t")


def _special_csv(text: str, args: Arguments) -> bool:
    rows = text.strip().split("\n", 1)[-1]
    return _special(text, args) and re.search(r'"[^"\n]*[^\w\s"][^"\n]*"', rows) is not None


def _quoted_csv(text: str, args: Arguments) -> bool:
    fields = [field.strip() for line in text.strip().splitlines() for field in line.split("\t")]
    return _quoted(text, args) and all(len(f) > 1 and f[0] == f[-1] == '"' for f in fields)


def _dates(text: str, args: Arguments) -> bool:
    try:
        dates = [datetime.date.fromisoformat(part.strip()) for part in text.split(",")]
    except ValueError:
        return False
    iso = all(re.fullmatch(r"\d{4}-\d\d-\d\d", part.strip()) for part in text.split(","))
    return iso and all(1769 <= date.year <= 1821 for date in dates)


def _repeat_changed(text: str, args: Arguments) -> bool:
    asked, given = args.text("prompt_to_repeat").split(), text.split()
    return asked[1:] == given[1:] and asked[:1] != given[:1]


def _span(text: str, args: Arguments) -> bool:
    words, given = args.text("prompt_to_repeat").lower().split(), text.lower().split()
    start, end = args.number("n_start"), args.number("n_end")
    return given in (words[start:end], words[start : end + 1])


def _title_case(text: str, args: Arguments) -> bool:
    words = [word for word in outer_words(text) if word[0].isalpha()]
    return all(word[0].isupper() or (at and word in _SMALL_WORDS) for at, word in enumerate(words))


IFBENCH_FORMS: Mapping[str, Check] = {
    "format:parentheses": _parentheses,
    "format:quotes": _nested_quotes,
    "format:options": _one_of_the_options,
    "format:newline": _word_per_line,
    "format:emoji": _emoji_ends,
    "format:line_indent": _stairs,
    "format:quote_unquote": _explained_quotes,
    "format:list": lambda t, a: t.count(a.text("sep")) >= 2,
    "format:thesis": _thesis,
    "format:sub-bullets": _sub_bullets,
    "format:no_bullets_bullets": _sentences_then_bullets,
    "format:title_case": _title_case,
    "format:output_template": lambda t, a: (
        (match := _TEMPLATE.search(t)) is not None and all(part.strip() for part in match.groups())
    ),
    "format:no_whitespace": lambda t, a: not any(char.isspace() for char in t),
    "custom:multiples": lambda t, a: re.findall(r"\d+", t) == [str(n) for n in range(14, 51, 7)],
    "custom:mcq_count_length": _multiple_choice,
    "custom:reverse_newline": _africa,
    "custom:word_reverse": lambda t, a: "bald eagle" in " ".join(plain_words(t)[::-1]),
    "custom:character_reverse": lambda t, a: "elgae dlab" in t.lower(),
    "custom:sentence_alphabet": _alphabet_story,
    "custom:european_capitals_sort": lambda t, a: (
        [part.strip(" .\n") for part in plain_ascii(t).split(",") if part.strip()] == _CAPITALS
    ),
    "custom:csv_city": _csv("ID Country City Year Count", rows=7),
    "custom:csv_special_character": _special_csv,
    "custom:csv_quotes": _quoted_csv,
    "custom:date_format_list": _dates,
    "repeat:repeat_change": _repeat_changed,
    "repeat:repeat_simple": lambda t, a: t.strip().lower() == _REPEATED.lower(),
    "repeat:repeat_span": _span,
}
