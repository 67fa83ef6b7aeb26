"""The mathematics of an update: advantages, policy losses, KL, importance weights and the objective."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
