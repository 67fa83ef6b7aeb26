"""The pytest plugin that comes with verl-lite: golden files as tests, and a fixture to score rollouts.

    pytest --verl-lite-golden          every *.golden.json below the test paths is a test

    def test_mine(score_rollouts):
        [row] = score_rollouts({"mine": {"use": "my_reward"}}, [{"completion": "42", "reference": "42"}])
        assert row.reward == 1.0

pytest loads this module in every session, so it imports nothing of verl-lite until it is used.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from verl_lite.plugins import ScoredRollout

ScoreRollouts = Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], "list[ScoredRollout]"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("verl-lite")
    group.addoption(
        "--verl-lite-golden", action="store_true", help="run *.golden.json files as tests of reward scores"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.name.endswith(".golden.json") and parent.config.getoption("--verl-lite-golden"):
        return GoldenFile.from_parent(parent, path=file_path)
    return None


class GoldenFile(pytest.File):
    def collect(self) -> Iterable[pytest.Item]:
        yield GoldenItem.from_parent(self, name="scores")


class GoldenItem(pytest.Item):
    def runtest(self) -> None:
        from verl_lite.lab.golden import compare_golden

        mismatches = compare_golden(self.path)
        if mismatches:
            raise GoldenFailure("\n".join(map(str, mismatches)))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        if isinstance(excinfo.value, GoldenFailure):
            return f"scores are not what {self.path.name} pins:\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"golden scores: {self.path.name}"


class GoldenFailure(Exception):
    """Scores moved; the message lists every row."""


@pytest.fixture(scope="session")
def score_rollouts() -> ScoreRollouts:
    """Score plain rows (`completion`, `reference`, ...) with a `rewards:` mapping, as training does."""

    def score(rewards: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> "list[ScoredRollout]":
        from verl_lite.plugins import RewardsConfig, Scorer
        from verl_lite.plugins.config_file import validate
        from verl_lite.plugins.records import to_record

        config = validate(RewardsConfig, {"rewards": rewards}, source="score_rollouts")
        rollouts = [to_record(dict(row), number).rollout for number, row in enumerate(rows, start=1)]
        with Scorer(config) as scorer:
            return list(scorer.score(rollouts).rows)

    return score
