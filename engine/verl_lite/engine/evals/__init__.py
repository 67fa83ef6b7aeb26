"""Evaluation: greedy and sampled answers on data sets, and significance tests between two models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
