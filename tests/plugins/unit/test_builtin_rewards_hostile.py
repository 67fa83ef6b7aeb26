"""Every cheap built-in reward over texts nobody would write: a score, never an exception, and in time."""

import time
from typing import Any

import pytest

from verl_lite.plugins import RewardCatalog, Rollout, Score, ScoreOutcome, find_rewards, to_score

MEGABYTE = 1_000_000
TEXTS = {
    "empty": "",
    "blank": " \n\t ",
    "nul": "\x00<answer>\x00</answer>",
    "surrogate": "the answer is \ud800 <answer>\udfff</answer>",
    "other script": "答案是 \u0661\u202e",
    "words": "word " * (MEGABYTE // 5),
    "one word": "a" * MEGABYTE,
    "blanks": " " * MEGABYTE,
    "open boxes": r"\boxed{" * (MEGABYTE // 7),
    "closed boxes": r"\boxed{1}" * (MEGABYTE // 9),
    "braces": "{" * MEGABYTE,
    "backslashes": "\\" * MEGABYTE,
    "open tags": "<think><answer>" * (MEGABYTE // 15),
    "closed tags": "</answer></think>" * (MEGABYTE // 17),
    "answers": "<answer>1</answer>" * (MEGABYTE // 18),
    "phrases": "the answer is " * (MEGABYTE // 14),
    "letters": "A B " * (MEGABYTE // 4),
    "fences": "```\n" * (MEGABYTE // 4),
    "brackets": "[" * MEGABYTE,
    "equals": "1+1=" * (MEGABYTE // 20),
    "or": "or " * (MEGABYTE // 3),
}
REWARDS: list[tuple[str, dict[str, Any]]] = [
    ("choice", {}),
    ("choice", {"extract": "last_letter"}),
    ("exact", {}),
    ("exact", {"answer_tag": "answer", "ignore_case": True, "ignore_punctuation": True, "unicode": "nfkc"}),
    *[("format", {"pattern": pattern}) for pattern in ("boxed", "think_answer", "think_boxed", "code_fence")],
    ("guard", {"max_prompt_copy_words": 3, "min_reasoning_words": 0}),
    ("guard", {}),
    ("json_schema", {"json_schema": {"type": "object"}}),
    ("json_schema", {"where": "fence"}),
    ("length", {"unit": "words"}),
    ("process", {}),
    ("regex", {"pattern": r"\d+"}),
    ("repetition", {"ngram": 3}),
    ("repetition", {"ngram": 40, "unit": "characters"}),
]


@pytest.fixture(scope="module")
def catalog() -> RewardCatalog:
    return find_rewards()


@pytest.mark.parametrize(("name", "options"), REWARDS, ids=lambda part: str(part)[:40])
def test_any_text_gets_a_score(catalog: RewardCatalog, name: str, options: dict[str, Any]) -> None:
    definition = catalog.get(name)
    given = definition.options_model.model_validate(options)
    call = definition.call(given) if definition.is_class else lambda rollout: definition.call(rollout, given)
    for kind, text in TEXTS.items():
        rollout = Rollout(
            completion=text,
            reference="B",
            prompt=({"role": "user", "content": "a b c d e"},),
            columns={"choices": ["one", "two"]},
        )
        began_s = time.process_time()
        score: Score = to_score(call(rollout))
        spent_s = time.process_time() - began_s
        assert score.outcome in (ScoreOutcome.OK, ScoreOutcome.ABSTAIN), (kind, score.reason)
        assert len(score.reason) < 1000, kind
        assert spent_s < 8.0, f"{kind}: {spent_s:.1f} s of CPU time"
