"""Our rewards in other trainers, and their reward functions as ours. No trainer is imported before it calls.

as_*        one of our configs as a reward function of TRL, verl, OpenRLHF or verifiers
foreign.py  the other way: `use: trl:my_module.my_reward` in a config
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
