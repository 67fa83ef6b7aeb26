"""IFBench's kinds about words and sentences (arXiv:2507.02833): count, ratio, words and sentence.

Departures from its program: a response without a letter or digit follows nothing; a keyword counts as a
word, not inside another one; a verb is one of a list and its forms, where it asks a tagger.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

from verl_lite.verifiers.instructions.language import count_syllables
from verl_lite.verifiers.instructions.texts import (
    PUNCTUATION,
    Arguments,
    count_words,
    outer_words,
    plain_words,
    sentences,
)
from verl_lite.verifiers.instructions.word_lists import NAMES, PRONOUNS, STOP_WORDS, is_verb

Check = Callable[[str, Arguments], bool]
_CONJUNCTIONS = frozenset("for and nor but or yet so".split())
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_VOWELS = frozenset("aeiou")
_CLUSTER = re.compile(r"[bcdfghjklmnpqrstvwxyz]{2}")
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_KEYWORD_COUNTS = (1, 2, 3, 5, 7)


def _stop_words(text: str, args: Arguments) -> bool:
    words = [word.lower() for word in re.findall(r"\w+(?:['’]\w+)*", text)]
    count = sum(word.replace("’", "'") in STOP_WORDS for word in words)
    return bool(words) and 100 * count <= args.number("percentage") * len(words)


def _ends(text: str) -> Counter[str]:
    return Counter(sentence.rstrip("\"'”’)*_ ")[-1:] for sentence in sentences(text))


def _two_to_one(text: str, args: Arguments) -> bool:
    ends = _ends(text)
    return ends["."] == 2 * ends["?"] > 0


def _balanced(text: str, args: Arguments) -> bool:
    ends = _ends(text)
    return ends["."] == ends["?"] == ends["!"] > 0


def _overlap(text: str, args: Arguments) -> bool:
    """The share of the response's distinct trigrams of characters that the reference text has too."""
    given, reference = (
        {one[at : at + 3] for at in range(len(one) - 2)} for one in (text, args.text("reference_text"))
    )
    wanted = args.number("percentage")
    return bool(given) and wanted - 2 <= 100 * len(given & reference) / len(given) <= wanted + 2


def _numbers(text: str, args: Arguments) -> bool:
    """1,000 and 3.5 are one number each."""
    return len(re.findall(r"\d+(?:[.,:/-]\d+)*", text)) == args.number("N")


def _alphabet(text: str, args: Arguments) -> bool:
    firsts = [word[0] for word in plain_words(text)]
    return all(first in _LETTERS for first in firsts) and all(
        (_LETTERS.index(after) - _LETTERS.index(before)) % 26 == 1 for before, after in pairwise(firsts)
    )


def _punctuation(text: str, args: Arguments) -> bool:
    mark = next((mark for mark in ("?!", "!?", "‽") if mark in text), "")
    rest = text.replace(mark, "", 1) if mark else ""
    return bool(mark) and all(one in rest for one in ".,!?;:")


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _equal_sentences(text: str, args: Arguments) -> bool:
    found = sentences(text)
    words = plain_words(text)
    return len(found) == 3 and len({len(one) for one in found}) == 1 and len(set(words)) == len(words)


def _japanese(text: str, args: Arguments) -> bool:
    words = text.split()
    every = words[args.number("N") - 1 :: args.number("N")]
    bare = [word.strip(PUNCTUATION) for word in every]
    return all(_JAPANESE.search(word) for word in bare if word and not word.isdigit())


def _syllable_parity(text: str, args: Arguments) -> bool:
    odd = [count_syllables(word) % 2 for word in plain_words(text)]
    return all(one != other for one, other in pairwise(odd))


def _last_is_first(text: str, args: Arguments) -> bool:
    words = [outer_words(one.lower()) for one in sentences(text)]
    return all(before and after and before[-1] == after[0] for before, after in pairwise(words))


def _paragraph_frames(text: str, args: Arguments) -> bool:
    paragraphs = [outer_words(line.lower()) for line in text.splitlines() if line.strip()]
    return all(words and words[0] == words[-1] for words in paragraphs)


def _increasing(text: str, args: Arguments) -> bool:
    sizes = [len(plain_words(one)) for one in sentences(text)]
    return all(after - before == args.number("small_n") for before, after in pairwise(sizes))


def _alliteration(text: str, args: Arguments) -> bool:
    longest = [_alliterative(plain_words(one)) for one in sentences(text)]
    return all(before < after for before, after in pairwise(longest))


def _alliterative(words: list[str]) -> int:
    """The number of words in the longest run with one first letter; 0 without two in a row."""
    best = run = 1
    for before, after in pairwise(words):
        run = run + 1 if before[0] == after[0] else 1
        best = max(best, run)
    return best if best > 1 else 0


def _sentence_keyword(text: str, args: Arguments) -> bool:
    found, at = sentences(text), args.number("N")
    return len(found) >= at >= 1 and args.text("word").lower() in found[at - 1].lower()


def _keyword_place(text: str, args: Arguments) -> bool:
    found, n, m = sentences(text), args.number("n"), args.number("m")
    words = outer_words(found[n - 1]) if 1 <= n <= len(found) else []
    return 1 <= m <= len(words) and words[m - 1].lower() == args.text("keyword").lower()


def _second_words(text: str, args: Arguments) -> bool:
    words = [word.lower() for word in outer_words(text)]
    return len(words) > 2 and words[1] == words[-2] == args.text("keyword").lower()


def _keyword_counts(text: str, args: Arguments) -> bool:
    lower = text.lower()
    return all(
        len(re.findall(rf"(?<!\w){re.escape(args.text(f'keyword{at}').lower())}(?!\w)", lower)) == count
        for at, count in enumerate(_KEYWORD_COUNTS, start=1)
    )


IFBENCH_WORDS: Mapping[str, Check] = {
    "count:word_count_range": lambda t, a: a.number("min_words") <= count_words(t) <= a.number("max_words"),
    "count:unique_word_count": lambda t, a: len({w.lower() for w in outer_words(t)}) >= a.number("N"),
    "count:conjunctions": lambda t, a: len(_CONJUNCTIONS & set(plain_words(t))) >= a.number("small_n"),
    "count:person_names": lambda t, a: len(NAMES & set(re.findall(r"\w+", t))) >= a.number("N"),
    "count:numbers": _numbers,
    "count:punctuation": _punctuation,
    "count:words_japanese": _japanese,
    "count:pronouns": lambda t, a: (
        sum(word in PRONOUNS for word in plain_words(t.replace("/", " "))) >= a.number("N")
    ),
    "count:keywords_multiple": _keyword_counts,
    "ratio:stop_words": _stop_words,
    "ratio:sentence_type": _two_to_one,
    "ratio:sentence_balance": _balanced,
    "ratio:overlap": _overlap,
    "ratio:sentence_words": _equal_sentences,
    "words:alphabet": _alphabet,
    "words:vowel": lambda t, a: "\n" not in t.strip() and len(_VOWELS & set(t.lower())) <= 3,
    "words:consonants": lambda t, a: all(_CLUSTER.search(word) for word in plain_words(t)),
    "words:palindrome": lambda t, a: (
        sum(len(word) >= 5 and word == word[::-1] for word in plain_words(t)) >= 10
    ),
    "words:prime_lengths": lambda t, a: all(_is_prime(len(word)) for word in plain_words(t)),
    "words:start_verb": lambda t, a: is_verb(next(iter(outer_words(t)), "")),
    "words:repeats": lambda t, a: max(Counter(plain_words(t)).values(), default=0) <= a.number("small_n"),
    "words:odd_even_syllables": _syllable_parity,
    "words:last_first": _last_is_first,
    "words:paragraph_last_first": _paragraph_frames,
    "words:no_consecutive": lambda t, a: all(x[0] != y[0] for x, y in pairwise(plain_words(t))),
    "words:keywords_specific_position": _keyword_place,
    "words:words_position": _second_words,
    "sentence:alliteration_increment": _alliteration,
    "sentence:keyword": _sentence_keyword,
    "sentence:increment": _increasing,
}
