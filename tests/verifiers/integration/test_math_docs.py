"""Every example in the tables of docs/math.md, run."""

import re
from collections.abc import Iterator
from pathlib import Path

from verl_lite.verifiers import MathOptions, verify_math

PAGE = Path(__file__).parents[3] / "docs" / "math.md"
CODE = re.compile(r"`([^`]+)`")


def table_rows(columns: tuple[str, ...]) -> Iterator[list[str]]:
    """The cells of every table of the page whose header is `columns`."""
    inside = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if tuple(cells) == columns:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(cells[0]) <= set("-"):
            yield cells


def test_the_tables_of_equal_and_unequal_answers_hold() -> None:
    told = 0
    failures = []
    for reference_cell, correct_cell, wrong_cell in table_rows(("reference", "correct", "wrong")):
        reference = CODE.findall(reference_cell)[0]
        for cell, expected in ((correct_cell, True), (wrong_cell, False)):
            for answer in CODE.findall(cell):
                told += 1
                verdict = verify_math(f"\\boxed{{{answer}}}", reference)
                if verdict.is_correct is not expected:
                    failures.append(f"{answer} for {reference}: {verdict.outcome} ({verdict.reason})")
    assert told > 100
    assert not failures, "\n".join(failures)


def test_the_table_of_responses_holds() -> None:
    rows = list(table_rows(("response", "reference", "outcome", "why")))
    assert len(rows) >= 7
    for response_cell, reference_cell, outcome, _ in rows:
        mode = "strict" if "strict" in response_cell else "lenient"
        response, reference = CODE.findall(response_cell)[0], CODE.findall(reference_cell)[0]
        got = verify_math(response, reference, options=MathOptions(mode=mode)).outcome
        assert got == outcome or (outcome == "not correct" and got != "correct"), response


def test_the_table_of_options_names_them_all_with_their_defaults() -> None:
    told = {CODE.findall(name)[0]: CODE.findall(default)[0] for name, default, _ in table_rows(
        ("option", "default", "meaning")
    )}  # fmt: skip
    defaults = MathOptions()
    assert told == {name: str(getattr(defaults, name)) for name in MathOptions.__dataclass_fields__}
