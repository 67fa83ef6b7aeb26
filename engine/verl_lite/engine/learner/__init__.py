"""The policy update: samples are packed into micro-batches, and the learner turns them into one step.

Holds the policy, critic and reference models, the optimiser, and the learner's part of a checkpoint. Runs
on one rank or, through `Ranks`, on several; this room does not know how ranks are started.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
