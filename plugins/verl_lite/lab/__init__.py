"""The offline tools over rollout records: score, diff, check, attack, report. No torch.

Names are imported when they are first used; the other rooms are `authoring`, `formats` and `preferences`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
