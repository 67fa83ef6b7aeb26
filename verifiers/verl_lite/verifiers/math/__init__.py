"""Math verification: `verify_math(response, reference)` and its batch form. See docs/math.md."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
