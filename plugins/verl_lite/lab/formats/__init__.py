"""Read other trainers' files: each module turns one row of a dump into our records.

    verl-lite score DUMP --format auto|verl-lite|verl|trl|verifiers|openrlhf|open-instruct

`auto` looks at the keys of the first row. Our own files, and any with a text `completion`, are
"verl-lite".
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
