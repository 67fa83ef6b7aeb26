"""Preference data: its rows, and how rewards, judge models and people rank completions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
