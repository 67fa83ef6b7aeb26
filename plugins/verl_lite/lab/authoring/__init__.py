"""For people who write rewards: start a package (template), describe a reward, check it (checks).

Names are imported when they are first used: worker processes load purity.py and nothing else.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
