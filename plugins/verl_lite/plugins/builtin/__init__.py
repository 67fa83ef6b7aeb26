"""The rewards that come with verl-lite, found through the same entry points as everyone else's.

A reward's module is named after the reward (`builtin/length.py`), its function `length_reward`, its
options `LengthOptions`. Names are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
