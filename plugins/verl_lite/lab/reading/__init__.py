"""From what a user names to a stream of groups: files, folders, globs, streams and remote paths.

places.py       names -> files on this disk
containers.py   any container or compression -> JSONL or Parquet
record_file.py  one such file -> records, by its format and the user's `--map`
index.py        is every group in one piece, and if not, which rows belong together?
spill.py        torn groups -> partitions of whole groups on disk
data_rows.py    the rows of a data set, without a format
rollouts.py     the one way in: `open_rollouts(sources).groups()`
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
