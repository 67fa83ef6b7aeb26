"""Rewards for answers that cite their sources: `citations` and `quotes`."""

from citation_rewards.rewards import CitationOptions, QuoteOptions, citations, quotes
from verl_lite.plugins import hookimpl

__all__ = ["CitationOptions", "QuoteOptions", "citations", "quotes"]

VERL_LITE_API_VERSION = 1


@hookimpl
def register_rewards(register):
    register(citations)
    register(quotes)
