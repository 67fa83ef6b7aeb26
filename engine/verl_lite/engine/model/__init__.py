"""Models as Hugging Face folders: load, build, save, quantise, add adapters, name the weights to sync."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
