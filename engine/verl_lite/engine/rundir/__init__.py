"""The folder of a run: who holds it, its checkpoints, its environment; how a run is stopped and resumed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
