"""Take an answer apart: sentences, the sources each one cites, the passages it quotes."""

import re
from dataclasses import dataclass

_REASONING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_CITATION = re.compile(r"\[(\d{1,9})\]")
_LATE_CITATIONS = re.compile(r"([.!?])((?:\s*\[\d{1,9}\])+)")  # "It is so. [1]" means "It is so [1]."
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_QUOTE = re.compile(r'"([^"]+)"|“([^“”]+)”')


@dataclass(frozen=True)
class Sentence:
    """`text` is without the citations; `cited` are their numbers, from 1; `quotes` what it quotes."""

    text: str
    cited: frozenset[int]
    quotes: tuple[str, ...]


def sentences_of(completion: str) -> list[Sentence]:
    """The sentences of the answer; what stands between think tags is no part of it."""
    answer = _LATE_CITATIONS.sub(r"\2\1", _REASONING.sub("", completion))
    parts = (part.strip() for part in _SENTENCE_END.split(answer))
    return [_sentence(part) for part in parts if re.search(r"\w", _CITATION.sub("", part))]


def _sentence(text: str) -> Sentence:
    return Sentence(
        text=_CITATION.sub("", text),
        cited=frozenset(int(number) for number in _CITATION.findall(text)),
        quotes=tuple(straight or curly for straight, curly in _QUOTE.findall(text)),
    )


def words_of(text: str) -> list[str]:
    """Words in lower case, in their order; case, spacing and punctuation do not tell texts apart."""
    return re.findall(r"\w+", text.casefold())


def content_words(text: str) -> frozenset[str]:
    """The words that say what a text is about: those of four letters and more."""
    return frozenset(word for word in words_of(text) if len(word) >= 4)
