"""Measuring models: greedy and sampled answers over data sets, and whether two models really differ."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
