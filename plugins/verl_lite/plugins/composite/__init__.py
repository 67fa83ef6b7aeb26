"""Several rewards as one: config, gates, schedules, policies, and the numbers about it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
