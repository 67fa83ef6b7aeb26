"""Scoring of groups while others are still being sampled."""

from collections.abc import Iterator
from contextlib import contextmanager

from verl_lite.plugins.scorer import Scorer, ScoringSession


@contextmanager
def scoring(scorer: Scorer, *, step: int) -> Iterator[ScoringSession]:
    """A scoring session, cancelled if the sampling inside fails or stops, so that no verifier runs on."""
    session = scorer.start(step=step)
    try:
        yield session
    except BaseException:
        session.cancel()
        raise
