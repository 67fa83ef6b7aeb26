"""Hostile answers and programs against a reward: what is rewarded without being right."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
