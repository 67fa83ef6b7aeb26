"""The completions to rank: the distinct completions of each prompt in a file of records."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verl_lite.errors import DataError
from verl_lite.lab.preferences.rows import PreferenceRow
from verl_lite.lab.reading import Sources, open_rollouts
from verl_lite.plugins import Message, Rollout
from verl_lite.plugins.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """At least two distinct completions of one prompt; `id` identifies exactly these completions."""

    id: str
    records: Sequence[Record]

    @property
    def rollouts(self) -> list[Rollout]:
        return [record.rollout for record in self.records]

    @property
    def completions(self) -> list[str]:
        return [record.rollout.completion for record in self.records]

    @property
    def prompt(self) -> Sequence[Message]:
        return self.records[0].rollout.prompt

    @property
    def question(self) -> str:
        return self.records[0].rollout.prompt_text

    def ranked(
        self,
        ranks: Sequence[int],
        *,
        source: str,
        annotator: str,
        scores: Sequence[float] = (),
    ) -> PreferenceRow:
        columns = {
            "group": self.records[0].rollout.group,
            "rollout_ids": [rollout.id for rollout in self.rollouts],
            "reference": self.records[0].rollout.reference,
        }
        return PreferenceRow(
            id=self.id,
            prompt=self.prompt,
            completions=self.completions,
            ranks=ranks,
            source=source,
            annotator=annotator,
            scores=scores,
            columns=columns,
        )


def read_candidates(
    sources: Sources, *, max_completions: int | None = None, seed: int = 0
) -> Iterator[Candidates]:
    """Each prompt's distinct completions, at most `max_completions` of them, chosen with `seed`.

    Leaves out prompts with fewer than two. Raises DataError if none is left.
    """
    found = False
    with open_rollouts(sources) as rollouts:
        for group in rollouts.groups():
            firsts: dict[str, Record] = {}
            for record in group:
                firsts.setdefault(record.rollout.completion, record)
            if len(firsts) > 1:
                found = True
                yield _candidates(group[0].rollout.group, list(firsts.values()), max_completions, seed)
    if not found:
        raise DataError(f"{sources}: no prompt has two different completions: sample several per prompt")


def _candidates(name: str, distinct: list[Record], max_completions: int | None, seed: int) -> Candidates:
    if max_completions is not None and len(distinct) > max_completions:
        chosen = random.Random(f"{seed}:{name}").sample(range(len(distinct)), max_completions)
        distinct = [distinct[index] for index in sorted(chosen)]
    texts = "\0".join(record.rollout.completion for record in distinct)
    digest = hashlib.blake2b(texts.encode("utf-8", "replace"), digest_size=6).hexdigest()
    return Candidates(id=f"{name}:{digest}", records=distinct)
