"""How often prompts were solved, as the curriculum hears of it."""

from verl_lite.engine.observe.rollout_metrics import success_rates
from verl_lite.plugins import Rollout, Score, ScoredRollout
from verl_lite.plugins.score import ComponentScore


def row(group: str, value: float | None) -> ScoredRollout:
    score = Score(value=value) if value is not None else Score(value=None, outcome="error", reason="crashed")
    return ScoredRollout(
        rollout=Rollout(completion="x", group=group),
        components={"correct": ComponentScore(score=score, weight=1.0, contribution=value, latency_s=0.0)},
        reward=value,
    )


def test_a_sample_that_was_not_judged_says_nothing_of_its_prompt() -> None:
    rows = [row("half", 1.0), row("half", None), row("half", 0.0), row("lost", None), row("lost", None)]
    assert success_rates(rows, "correct", 1.0) == {"half": 0.5}
