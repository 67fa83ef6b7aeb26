"""Each fault planted in a small data set is found, and sound rows are left alone."""

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from verl_lite.cli import main
from verl_lite.engine.data import TextRow, check_rows, data_page, length_plot, near_duplicates, text_row

LONG = "a train leaves the station at noon and travels north for three hours until it meets another one"


def row_of(row: dict[str, Any]) -> TextRow:
    return text_row(row, prompt="question", answer="answer", messages="messages", reference="reference")


def sums(count: int) -> list[TextRow]:
    return [
        row_of({"question": f"{n}+1=", "answer": f"\\boxed{{{n + 1}}}", "reference": str(n + 1)})
        for n in range(count)
    ]


def test_sound_rows_have_no_findings() -> None:
    found = check_rows(sums(12))
    assert (found.exact_duplicates, found.near_duplicates, found.faults) == ([], [], [])
    assert (found.overlap, found.odd_style, found.wrong, found.unparsed) == ([], [], [], [])
    assert found.num_verified == 12


def test_a_dotted_reference_is_found_in_nested_columns_and_json_text() -> None:
    for gold in ({"ground_truth": "2"}, '{"ground_truth": "2"}'):
        row = {"question": "1+1", "answer": r"\boxed{3}", "gold": gold}
        read = text_row(
            row, prompt="question", answer="answer", messages="messages", reference="gold.ground_truth"
        )
        assert list(check_rows([read]).wrong) == [0]


def test_planted_faults_are_found() -> None:
    rows = [*sums(12), TextRow(question="3+1=", answer="\\boxed{5}", reference="4")]
    rows += [TextRow(question="50+1=", answer="51", reference="51"), rows[2]]
    found = check_rows(rows, max_length=12, held_out=["9+1= "])
    assert found.wrong == [12]
    assert found.exact_duplicates == [(2, 14)]
    assert found.odd_style == [(13, "lacks the box")]
    assert found.overlap == [9]
    assert found.lengths[:2] == [len("0+1=\n\\boxed{1}")] * 2
    assert found.truncated == [at for at, size in enumerate(found.lengths) if size > 12]
    assert sum(count for _, _, count in found.histogram) == 15


def test_near_duplicates_share_most_shingles() -> None:
    other = "an entirely different question about the number of apples in a basket near the old river"
    texts = [LONG, other, LONG + " again", LONG.replace("north", "south").replace("three", "two")]
    assert near_duplicates(texts) == [(0, 2)]  # the last one shares half of its shingles


def test_programs_are_judged_by_the_row_s_tests() -> None:
    """A right one, a wrong one, a text without a program, tests that test nothing, HumanEval's shape."""
    mbpp = {"question": "Write add.", "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]}
    rows = [
        {**mbpp, "answer": "```python\ndef add(a, b):\n    return a + b\n```"},
        {**mbpp, "answer": "```python\ndef add(a, b):\n    return 3\n```"},
        {**mbpp, "answer": "Simply put the two together!"},
        {**mbpp, "answer": "def add(a, b): return a + b", "test_list": []},
        {
            "question": "def one():\n",
            "prompt": "def one():\n    ",
            "answer": "def one():\n    return 1\n",
            "entry_point": "one",
            "test": "def check(candidate):\n    assert candidate() == 1\n",
        },
        {"question": "1+1=", "answer": "\\boxed{3}", "reference": "2"},
    ]
    found = check_rows([row_of(row) for row in rows])
    assert found.num_verified == 6
    assert list(found.wrong) == [1, 2, 5]
    assert list(found.unparsed) == []
    assert list(found.unjudged) == [(3, "bad_reference")]


def test_a_body_that_continues_the_prompt_is_judged_with_it() -> None:
    """HumanEval's own solutions: whatever column has the question, fenced or not, stub or docstring."""
    row = {"entry_point": "add", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"}
    documented = 'def add(a, b):\n    """The sum."""\n'
    answers = [
        (documented, "    return a + b\n"),
        (documented, "    return a - b\n"),
        (documented, "```python\n    return a + b\n```"),
        (documented, documented + "    return a + b\n"),
        ("def add(a, b):\n", "    return a + b\n"),
        ("def add(a, b):\n    ", "return a + b\n"),
        ("Please write add.", "    return a + b\n"),
    ]
    found = check_rows([row_of({**row, "question": asked, "answer": answer}) for asked, answer in answers])
    assert (found.num_verified, list(found.wrong), list(found.unjudged)) == (7, [1, 6], [])


def test_the_page_plots_every_bin_and_runs_no_text() -> None:
    rows = [*sums(12), TextRow(question="<script>alert(1)</script>", answer="\\boxed{5}")]
    found = check_rows(rows, max_length=20)
    table = [["odd style", "1", "<b>row 12</b>"]]
    page = data_page(found, table, title="<i>rows</i>", unit="characters", limit=20)
    assert "&lt;i&gt;rows&lt;/i&gt;" in page
    assert "<b>" not in page
    plot = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    bars = plot.findall("rect[@class='bar']")
    counts = [int(bar.findtext("title", "").split(": ")[1].split()[0]) for bar in bars]
    assert counts == [count for _, _, count in found.histogram]
    tallest = max(float(bar.get("height", "0")) for bar in bars)
    for bar, count in zip(bars, counts, strict=True):
        assert float(bar.get("height", "0")) == pytest.approx(tallest * count / max(counts), abs=0.1)
    assert len(plot.findall("line[@class='limit']")) == 1
    assert 'class="limit"' not in length_plot(found.histogram, unit="characters", limit=10_000)


@pytest.mark.parametrize(
    ("chat", "fault"),
    [
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}],
            "turn 1 (assistant) is empty",
        ),
        ([{"role": "user", "content": "a"}], "the chat ends with a user turn"),
        ([{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}], "unknown role 'human'"),
        ("text", "messages is no list of turns"),
    ],
)
def test_malformed_chats(chat: object, fault: str) -> None:
    assert row_of({"messages": chat}).faults == [fault]


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "1+1=", "answer": "\\boxed{3}", "reference": "2"}, {"question": "x", "answer": ""}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["verl-lite", "data", "check", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out + captured.err

    code, out = call(str(path), "--json")
    report = json.loads(out)
    assert code == 0
    assert report["wrong"] == [0]
    assert report["faults"] == [[1, "no text in column 'answer'"]]
    code, out = call(str(path), "--html", str(tmp_path / "page.html"))
    assert code == 0
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert "wrong answer" in out
    code, out = call(str(path), "--max-tokens", "5")
    assert code == 2
    assert "name the tokenizer with --model" in out
