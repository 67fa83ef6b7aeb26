"""The frozen configuration of a training run, and every check that needs nothing but the config.

Importing it never imports torch, and no config reads the environment or the file system.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
