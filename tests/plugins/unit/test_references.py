"""How several accepted references travel: a list in the data, JSON text in the rollout."""

import pytest

from verl_lite.plugins import Rollout, accepted_references, reference_text


@pytest.mark.parametrize(
    ("column", "text", "accepted"),
    [
        (None, None, []),
        ("5", "5", ["5"]),
        (["1/2", 0.5], '["1/2", "0.5"]', ["1/2", "0.5"]),
        (["a"], '["a"]', ["a"]),
        ("[1, 2]", "[1, 2]", ["[1, 2]"]),  # an interval
        ("['a', 'b']", "['a', 'b']", ["['a', 'b']"]),
        ('["a", broken"]', '["a", broken"]', ['["a", broken"]']),
    ],
)
def test_a_column_becomes_text_and_its_references(
    column: object, text: str | None, accepted: list[str]
) -> None:
    assert reference_text(column) == text
    assert list(accepted_references(Rollout(completion="", reference=text))) == accepted
