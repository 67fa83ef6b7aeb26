"""Data sets: rows to prompts, in an order that resumes exactly, and checks of the rows.

`answers`, `quality` and `page` import without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
