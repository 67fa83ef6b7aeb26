"""Write, find, combine and run reward plugins. Importing this never imports torch.

Names for writing rewards are imported at once, those for running them when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
