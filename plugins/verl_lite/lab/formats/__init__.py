"""Read other trainers' files: each module turns one row of a dump into our records.

    verl-lite score DUMP --format auto|verl-lite|verl|trl|verifiers|openrlhf|open-instruct

`auto` looks at the keys of the first row. Our own files, and any with a text `completion`, are
"verl-lite".
"""

from verl_lite.lab.formats.detect import AUTO, FORMATS, OWN, Format, converter_for, detect_format

__all__ = ["AUTO", "FORMATS", "OWN", "Format", "converter_for", "detect_format"]
