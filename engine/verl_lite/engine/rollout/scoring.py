"""Scores of rollouts that come group by group, computed while others are still being sampled."""

from collections.abc import Iterator
from contextlib import contextmanager

from verl_lite.plugins.scorer import Scorer, ScoringSession


@contextmanager
def scoring(scorer: Scorer, *, step: int) -> Iterator[ScoringSession]:
    """A scoring session that is cancelled if the sampling inside fails or is stopped.

    Without that, its verifiers would run on beside whatever is sampled next.
    """
    session = scorer.start(step=step)
    try:
        yield session
    except BaseException:
        session.cancel()
        raise
