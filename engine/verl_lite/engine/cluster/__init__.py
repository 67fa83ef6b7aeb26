"""A run over several processes and machines: learner ranks, vLLM engines and reward workers.

Ray or torchrun starts the ranks, Ray places the rest. The other rooms see a `PolicyLearner`, a `Sampler`
and a reward `Placement`, as in one process.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
