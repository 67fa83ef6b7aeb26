"""Environments and tools for trajectories of several turns, as plugins like the rewards. No torch.

contract.py   what plugin authors write, and what the engine calls
config.py     the sections `environment:` and `tools:`
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
