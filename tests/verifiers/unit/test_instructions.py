"""Every kind of IFEval and IFBench on texts written by hand: right ones, wrong ones, near misses."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from verl_lite.verifiers import INSTRUCTION_KINDS, verify_instructions
from verl_lite.verifiers.instructions.texts import is_emoji, plain_words, sentences
from verl_lite.verifiers.instructions.verify import loose_readings
from verl_lite.verifiers.instructions.word_lists import is_verb

CORPUS = Path(__file__).parents[1] / "corpora" / "instructions.jsonl"
ROWS: dict[str, list[dict[str, Any]]] = defaultdict(list)
for line in CORPUS.read_text(encoding="utf-8").splitlines():
    ROWS[json.loads(line)["kind"]].append(json.loads(line))


def followed(text: str, kind: str, loose: bool = False, **arguments: object) -> bool:
    return verify_instructions(text, [kind], [arguments], loose=loose)[0].is_followed


def test_every_kind_is_tried_on_right_and_wrong_texts() -> None:
    assert len(INSTRUCTION_KINDS) == 25 + 58
    assert set(ROWS) == set(INSTRUCTION_KINDS)
    for kind, rows in ROWS.items():
        assert {row["followed"] for row in rows} == {True, False}, kind


@pytest.mark.parametrize("kind", sorted(INSTRUCTION_KINDS))
def test_a_kind_tells_right_from_wrong(kind: str) -> None:
    wrong = [row for row in ROWS[kind] if followed(row["text"], kind, **row["args"]) != row["followed"]]
    assert wrong == []


@pytest.mark.parametrize("kind", sorted(INSTRUCTION_KINDS))
def test_nothing_follows_nothing_and_any_text_is_read(kind: str) -> None:
    arguments = ROWS[kind][0]["args"]
    for empty in ("", " \n\t", "...", "* - ?!"):
        assert not followed(empty, kind, loose=True, **arguments)
    for text in (
        ".",
        "\x00",
        "\ud800",
        "*" * 5000,
        '"' * 5000,
        "(" * 5000,
        "?!" * 2000,
        "答案。" * 500,
        "<i>" * 999,
    ):
        followed(text, kind, loose=True, **arguments)


def test_a_missing_or_wrong_argument_is_named() -> None:
    with pytest.raises(ValueError, match="count:numbers needs the argument 'N'; the row gives M"):
        followed("1", "count:numbers", M=3, N=None)
    with pytest.raises(ValueError, match="N='many' is no number"):
        followed("1", "count:numbers", N="many")
    with pytest.raises(ValueError, match="keywords='a' is no list of texts"):
        followed("a", "keywords:existence", keywords="a")
    with pytest.raises(ValueError, match="relation='around'; expected one of less than, at least"):
        followed("a", "length_constraints:number_words", num_words=3, relation="around")
    with pytest.raises(ValueError, match="unknown instruction 'count:cats'"):
        verify_instructions("a", ["count:cats"], [{}])
    with pytest.raises(ValueError, match="2 instructions and the arguments of 1"):
        verify_instructions("a", ["startend:quotation"] * 2, [{}])


def test_loose_drops_lines_and_asterisks() -> None:
    text = 'Sure:\n"**All** of it"\nBye!'
    assert not followed(text, "startend:quotation")
    assert followed(text, "startend:quotation", loose=True)
    assert loose_readings("a\n*b*\nc") == [
        *("a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*"),
        *("a\nb\nc", "b\nc", "a\nb", "b"),
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Dr. A. B. Smith Jr. lives at 3.5 km. He walks.", 2),
        ("Wait... what? No way!!! Really?!", 4),
        ("It costs $4.99, e.g. at U.S. shops. Fine.", 2),
        ("First line\nsecond line. Third", 2),
        ('"Stop!" he cried. "Why?" she asked.', 2),
        ("これは猫です。犬ではない。", 2),
        ("", 0),
    ],
)
def test_sentences_are_counted_as_people_count_them(text: str, count: int) -> None:
    assert len(sentences(text)) == count


def test_words_verbs_and_emoji() -> None:
    assert plain_words("“Rock'n'roll,” — 2-fold…") == ["rocknroll", "2fold"]
    assert [is_verb(word) for word in ("stopping", "denied", "taken", "Why", "blue", "sing")] == [
        *(True, True, True, False, False, True)
    ]
    assert [char for char in "😀a⏱1❤.⭐é🇩字" if is_emoji(char)] == list("😀⏱❤⭐🇩")
