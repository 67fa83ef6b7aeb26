"""Read what other trainers wrote: each module turns one row of a dump into records of ours.

    verl-lite score DUMP --format auto|verl-lite|verl|trl|verifiers|openrlhf|open-instruct

`auto` looks at the keys of the first row. A file of our own, or any with a text `completion`, is
"verl-lite".
"""

from verl_lite.lab.formats.detect import AUTO, FORMATS, OWN, Format, converter_for, detect_format

__all__ = ["AUTO", "FORMATS", "OWN", "Format", "converter_for", "detect_format"]
