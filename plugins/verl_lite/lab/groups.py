"""Cut a stream of records into GRPO groups: the samples of one prompt at one step."""

from collections.abc import Iterable, Iterator

from verl_lite.plugins.records import Record

GroupKey = tuple[int | None, str]


def group_key(record: Record) -> GroupKey:
    """(step, group): samples of one prompt at different training steps are different groups."""
    return record.step, record.rollout.group


def consecutive_groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield neighbouring records of one group together; only one group is in memory at a time.

    >>> from verl_lite.plugins import Rollout
    >>> rows = [Record(rollout=Rollout(completion=c, group=g)) for c, g in ["xa", "ya", "zb"]]
    >>> [[record.rollout.completion for record in group] for group in consecutive_groups(rows)]
    [['x', 'y'], ['z']]
    """
    group: list[Record] = []
    current: GroupKey | None = None
    for record in records:
        key = group_key(record)
        if group and key != current:
            yield group
            group = []
        group.append(record)
        current = key
    if group:
        yield group


def number_samples(group: list[Record]) -> list[Record]:
    """`group` with distinct sample indices: where those of the rows are not, the position is the index.

    >>> from verl_lite.plugins import Rollout
    >>> rows = [Record(rollout=Rollout(completion=text, group="g")) for text in "xy"]
    >>> [record.rollout.sample_index for record in number_samples(rows)]
    [0, 1]
    """
    if len({record.rollout.sample_index for record in group}) < len(group):
        for index, record in enumerate(group):
            # The reader made this rollout and nobody else has it yet: a copy would cost a tenth of scoring.
            object.__setattr__(record.rollout, "sample_index", index)
    return group
