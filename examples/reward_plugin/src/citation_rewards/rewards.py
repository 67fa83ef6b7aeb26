"""The rewards. Rows need a column with their sources: a list of texts, cited as [1], [2], ..."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from citation_rewards.answer import Sentence, content_words, sentences_of, words_of
from verl_lite.plugins import Rollout, Score, reward


class CitationOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(default="sources", description="The column with the list of source texts.")
    max_per_sentence: PositiveInt = Field(
        default=3, description="A sentence that cites more sources than this counts as citing none."
    )
    min_shared_words: int = Field(
        default=1, ge=0, description="Words of 4+ letters a sentence must share with a source it cites."
    )


class QuoteOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(default="sources", description="The column with the list of source texts.")
    min_words: PositiveInt = Field(
        default=3, description="Shorter quotations (names, titles) are not judged."
    )


@reward("cited_claims", options=CitationOptions, timeout_s=2.0)
def cited_claims(rollout: Rollout, options: CitationOptions) -> Score:
    """The share of sentences that cite a source which can support them; 0.0 for an invented source.

    A citation supports a sentence when both speak of the same things (`min_shared_words`), so putting
    [1] behind everything does not pay, nor does citing every source there is (`max_per_sentence`).
    """
    sources = _sources(rollout, options.column)
    sentences = sentences_of(rollout.completion)
    if not sentences:
        return Score(0.0, reason="there is no answer")
    invented = sorted({number for sentence in sentences for number in sentence.cited} - set(sources))
    if invented:
        return Score(0.0, reason=f"cites [{invented[0]}], there are {len(sources)} sources")
    unsupported = [sentence.text for sentence in sentences if not _is_supported(sentence, sources, options)]
    return Score(
        1 - len(unsupported) / len(sentences),
        reason=f"unsupported: {unsupported[0]!r:.80}" if unsupported else "",
        details={"sentences": len(sentences), "unsupported": len(unsupported)},
    )


@reward("quotes", options=QuoteOptions, timeout_s=2.0)
def quotes(rollout: Rollout, options: QuoteOptions) -> Score:
    """The share of quotations that stand word for word in a source their sentence cites.

    Abstains where nothing is quoted.
    """
    sources = {number: words_of(text) for number, text in _sources(rollout, options.column).items()}
    found, missing = 0, []
    for sentence in sentences_of(rollout.completion):
        for quote in sentence.quotes:
            words = words_of(quote)
            if len(words) < options.min_words:
                continue
            if any(_contains(sources.get(number, ()), words) for number in sentence.cited):
                found += 1
            else:
                missing.append(quote)
    if not found and not missing:
        return Score(None, reason="nothing is quoted")
    reason = f"not in the source: {missing[0]!r:.80}" if missing else ""
    return Score(found / (found + len(missing)), reason=reason, details={"missing": missing})


def _sources(rollout: Rollout, column: str) -> dict[int, str]:
    """The texts by their numbers. A row without them cannot be judged: an error, not a 0."""
    texts = rollout.columns.get(column)
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"column {column!r}: expected a list of texts, got {texts!r:.80}")
    return dict(enumerate(texts, start=1))


def _is_supported(sentence: Sentence, sources: dict[int, str], options: CitationOptions) -> bool:
    if not 1 <= len(sentence.cited) <= options.max_per_sentence:
        return False
    about = content_words(sentence.text)
    return any(
        len(about & content_words(sources[number])) >= options.min_shared_words for number in sentence.cited
    )


def _contains(text: Sequence[str], words: Sequence[str]) -> bool:
    """Whether `words` stand in `text` one after the other."""
    padded = f" {' '.join(text)} "
    return f" {' '.join(words)} " in padded
