"""Fakes to test and measure with: engines without a model, and a learner that can be slowed down."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
