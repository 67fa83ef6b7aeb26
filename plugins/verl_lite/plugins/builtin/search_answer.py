"""Short answers to questions and searches: `search_answer` (exact match and F1, as in SQuAD and HotpotQA)."""

import re
import string
from collections import Counter
from typing import Literal

from pydantic import Field

from verl_lite.plugins.builtin.exact import answer_in
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED = frozenset({"yes", "no", "noanswer"})


class SearchAnswerOptions(ConfigModel):
    """Which part is the answer, and how it is compared with each accepted one; the best counts.

    Case, punctuation, the articles a, an, the and blanks do not count (SQuAD, arXiv:1606.05250).
    """

    metric: Literal["em", "f1"] = Field(
        default="em",
        description="em: 1.0 for the same words; f1: the harmonic mean of the shares of words in common "
        "(yes and no only match themselves)",
    )
    answer_tag: str = Field(
        default="answer",
        description="the content of the last <tag>...</tag> is the answer; empty for all text",
    )
    min_f1: float = Field(default=0.0, ge=0, le=1, description="f1: a lower value counts as 0.0")


@reward("search_answer", options=SearchAnswerOptions, isolate=False, cache=False)
def search_answer_reward(rollout: Rollout, options: SearchAnswerOptions) -> Score:
    """Exact match or F1 of the answer's words with the best of the accepted answers; abstains without one."""
    references = rollout.references
    if not references:
        return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
    answer = answer_in(rollout.completion, options.answer_tag)
    if isinstance(answer, Score):
        return answer
    given, accepted = normalised_words(answer), [normalised_words(one) for one in references]
    exact = float(given in accepted)
    f1 = max(word_f1(given, one) for one in accepted)
    value = exact if options.metric == "em" else f1 if f1 >= options.min_f1 else 0.0
    reason = "" if exact else f"expected {' or '.join(references)[:120]!r}, got {answer.strip()[:80]!r}"
    return Score(value, reason=reason, details={"em": exact, "f1": f1})


def normalised_words(text: str) -> list[str]:
    """The words without case, punctuation and articles.

    >>> normalised_words("The Beatles' drummer, a man")
    ['beatles', 'drummer', 'man']
    """
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def word_f1(given: list[str], accepted: list[str]) -> float:
    """2 * common / (given + accepted), counting words as often as they occur."""
    if not given or not accepted or ({*given[:1], *accepted[:1]} & _CLOSED and given != accepted):
        return float(given == accepted)
    common = sum((Counter(given) & Counter(accepted)).values())
    return 2 * common / (len(given) + len(accepted))
