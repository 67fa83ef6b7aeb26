"""Instructions that a program can check: the kinds of IFEval and IFBench, in tables of small functions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
