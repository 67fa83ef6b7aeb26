"""References of a row: one text, or several of which any is right."""

import json
from collections.abc import Sequence

from verl_lite.plugins.rollout import Rollout


def reference_text(value: object) -> str | None:
    """What a data set's column holds, as the text of `Rollout.reference`; a list as a JSON list of texts.

    >>> reference_text(["1/2", 0.5])
    '["1/2", "0.5"]'
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value:
        return json.dumps([one if isinstance(one, str) else str(one) for one in value], ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, default=str)


def accepted_references(rollout: Rollout) -> Sequence[str]:
    """The references of which any is right; none where the rollout has no reference.

    A reference that is a JSON list of texts stands for several. A Python list's repr (['a', 'b']) and
    [1, 2] do not: they are one answer.
    """
    reference: object = rollout.reference  # a bridge may hand over the data set's own list
    if isinstance(reference, (list, tuple)):
        return [str(one) for one in reference]
    if not isinstance(reference, str):
        return []
    if reference.startswith('["') and reference.endswith('"]'):
        try:
            members = json.loads(reference)
        except ValueError:
            return [reference]
        if all(isinstance(member, str) for member in members):
            return list(members)
    return [reference]
