"""How far annotators agree: Cohen's kappa over the pairs of completions both have ordered."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from verl_lite.lab.preferences.rows import PreferenceRow
from verl_lite.lab.statistics import cohen_kappa, wilson_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two annotators on the pairs both judged (better, worse or tie).

    `kappa` is 1 for full agreement and 0 at chance level; None where chance alone would agree fully.
    """

    first: str
    second: str
    num_pairs: int
    agreed: float
    interval: tuple[float, float]
    kappa: float | None


def annotator_agreement(rows: Sequence[PreferenceRow]) -> list[Agreement]:
    """Each two annotators (source/annotator) with common pairs; a later judgement replaces an earlier one."""
    verdicts: dict[str, dict[tuple[str, str, str], str]] = defaultdict(dict)
    for row in rows:
        who = annotator_name(row)
        question = "\0".join(str(message.get("content", "")) for message in row.prompt)
        order = sorted(range(len(row.completions)), key=lambda index: row.completions[index])
        for i, j in combinations(order, 2):
            pair = (question, row.completions[i], row.completions[j])
            first, second = row.ranks[i], row.ranks[j]
            verdicts[who][pair] = "tie" if first == second else "better" if first < second else "worse"
    found = []
    for one, other in combinations(sorted(verdicts), 2):
        shared = sorted(verdicts[one].keys() & verdicts[other].keys())
        pairs = [(verdicts[one][key], verdicts[other][key]) for key in shared]
        if pairs:
            same = sum(a == b for a, b in pairs)
            found.append(
                Agreement(
                    first=one,
                    second=other,
                    num_pairs=len(pairs),
                    agreed=same / len(pairs),
                    interval=wilson_interval(same, len(pairs)),
                    kappa=cohen_kappa(pairs),
                )
            )
    return found


def annotator_name(row: PreferenceRow) -> str:
    """The source and the annotator ("human/ann"), or the source alone if it names nobody."""
    return f"{row.source}/{row.annotator}" if row.annotator else row.source or "unknown"
