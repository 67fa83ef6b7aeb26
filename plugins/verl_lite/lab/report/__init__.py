"""One self-contained HTML file from rollouts or a run: curves, distributions, a rollout browser."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
