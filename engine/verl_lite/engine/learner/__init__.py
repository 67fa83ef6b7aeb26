"""The policy update: the learner packs samples into micro-batches and makes one step of them.

Holds the policy, critic and reference models, the optimiser, and the learner's part of a checkpoint. Runs
on one rank or, through `Ranks`, on several; ranks are started elsewhere (`cluster`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
