"""From prompts to scored batches: samplers, the canary that checks their weights, batch sources."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
