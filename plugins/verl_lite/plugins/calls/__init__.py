"""Tool calls as model families write them: one table, read strictly by family or loosely in any notation.

formats.py    the table
reading.py    calls of a text, and calls as data
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
