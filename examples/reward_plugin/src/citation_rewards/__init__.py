"""Rewards for answers that cite their sources: `cited_claims` and `quotes`."""

from citation_rewards.rewards import CitationOptions, QuoteOptions, cited_claims, quotes
from verl_lite.plugins import Register, hookimpl

__all__ = ["CitationOptions", "QuoteOptions", "cited_claims", "quotes"]

VERL_LITE_API_VERSION = 1


@hookimpl
def register_rewards(register: Register) -> None:
    register(cited_claims)
    register(quotes)
