"""score, diff, check and attack on anything that holds rollouts, with rewards of any kind."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from verl_lite.lab.attack import AttackReport, attack_rewards
from verl_lite.lab.check import CheckOptions, CheckReport, check_file
from verl_lite.lab.diff import DiffReport, diff_groups
from verl_lite.lab.formats import AUTO
from verl_lite.lab.groups import GroupKey, group_key
from verl_lite.lab.notebook.rewards import NotebookRewards, read_rewards
from verl_lite.lab.notebook.scores import Scores
from verl_lite.lab.notebook.sources import Renames, as_files, read_source
from verl_lite.lab.scoring import ScoringOptions, open_scorer, without_breaker
from verl_lite.lab.statistics import group_advantages
from verl_lite.lab.summary import ScoreSummary
from verl_lite.plugins import ScoredRollout
from verl_lite.plugins.composite import batch_metrics
from verl_lite.plugins.records import Record, StoredScore

RECORDED = "recorded"


def score(
    rollouts: Any,
    rewards: Any,
    *,
    format: str = AUTO,
    renames: Renames | None = None,
    workers: int | None = None,
    debug_inline: bool = False,
) -> Scores:
    """Score `rollouts` (see read_source) with `rewards` (see read_rewards), as training does.

    Samples of one prompt and step are scored together, wherever they are in the source. Failures become
    outcomes with reasons; no breaker stops the pass. Raises DataError, ConfigError and PluginError for what
    cannot be read or run.
    """
    records = read_source(rollouts, format=format, renames=renames)
    return _score(records, read_rewards(rewards), workers, debug_inline)


def diff(
    rollouts: Any,
    before: Any,
    after: Any,
    *,
    format: str = AUTO,
    renames: Renames | None = None,
    workers: int | None = None,
    max_examples: int = 10,
) -> DiffReport:
    """What changes from the rewards `before` to `after`; before="recorded" are the scores in the source."""
    records = read_source(rollouts, format=format, renames=renames)
    sides = [
        records
        if isinstance(rewards, str) and rewards == RECORDED
        else _scored_records(records, _score(records, read_rewards(rewards), workers, False))
        for rewards in (before, after)
    ]
    groups = _groups(records).values()
    streams = [[[side[place] for place in places] for places in groups] for side in sides]
    return diff_groups(*streams, max_examples=max_examples)


def check(
    rollouts: Any,
    rewards: Any,
    *,
    label: str | None = None,
    primary: str | None = None,
    by: Sequence[str] = CheckOptions().by,
    num_probes: int = CheckOptions().num_probes,
    format: str = AUTO,
    renames: Renames | None = None,
    workers: int | None = None,
) -> CheckReport:
    """Whether the rewards can be trusted on these rollouts: the findings of `verl-lite check`."""
    options = CheckOptions(label=label, primary=primary, by=tuple(by), num_probes=num_probes)
    given = read_rewards(rewards)
    with as_files(rollouts, format=format, renames=renames) as (files, kind, names):
        scoring = replace(_options(given, kind, workers), renames=names)
        return check_file(files, given.config, check=options, scoring=scoring)


def attack(
    rewards: Any,
    rollouts: Any = None,
    *,
    primary: str | None = None,
    num_rows: int = 20,
    families: Sequence[str] = (),
    format: str = AUTO,
    renames: Renames | None = None,
    workers: int | None = None,
) -> AttackReport:
    """What hostile answers earn, on the first prompts of `rollouts` or on a few built-in ones."""
    given = read_rewards(rewards)
    chosen: dict[str, Any] = {"primary": primary, "num_rows": num_rows, "families": families}
    if rollouts is None:
        return attack_rewards(given.config, scoring=_options(given, AUTO, workers), **chosen)
    with as_files(rollouts, format=format, renames=renames) as (files, kind, names):
        scoring = replace(_options(given, kind, workers), renames=names)
        return attack_rewards(given.config, files, scoring=scoring, **chosen)


def _options(rewards: NotebookRewards, format: str, workers: int | None) -> ScoringOptions:
    return ScoringOptions(format=format, workers=workers, catalog=rewards.catalog)


def _score(
    records: Sequence[Record], rewards: NotebookRewards, workers: int | None, debug_inline: bool
) -> Scores:
    config = without_breaker(rewards.config)
    options = replace(_options(rewards, AUTO, workers), debug_inline=debug_inline)
    rows: list[ScoredRollout | None] = [None] * len(records)
    advantages: list[float | None] = [None] * len(records)
    groups = _groups(records)
    by_step: dict[int, list[int]] = {}
    for (step, _), places in groups.items():
        by_step.setdefault(step or 0, []).extend(places)
    with open_scorer(config, options) as scorer:
        for step, places in by_step.items():
            scored = scorer.score_rows([records[place].rollout for place in places], step=step)
            for place, row in zip(places, scored, strict=True):
                rows[place] = row
        sources = scorer.components
    done = [row for row in rows if row is not None]
    for places in groups.values():
        for place, value in zip(places, group_advantages([done[p].reward for p in places]), strict=True):
            advantages[place] = value
    summary = ScoreSummary()
    summary.add(done)
    summary.name_sources(sources)
    return Scores(
        rows=done,
        steps=[record.step for record in records],
        advantages=advantages,
        metrics=batch_metrics(done, combine=config.scoring.combine),
        summary=summary,
    )


def _groups(records: Sequence[Record]) -> dict[GroupKey, list[int]]:
    """Each group's places in the source, the groups in the order of their first samples."""
    groups: dict[GroupKey, list[int]] = {}
    for place, record in enumerate(records):
        groups.setdefault(group_key(record), []).append(place)
    return groups


def _scored_records(records: Sequence[Record], scores: Scores) -> list[Record]:
    return [
        replace(
            record,
            reward=row.reward,
            dropped_because=row.dropped_because,
            components={
                name: StoredScore(
                    value=part.score.value, outcome=part.score.outcome.value, reason=part.score.reason
                )
                for name, part in row.components.items()
            },
        )
        for record, row in zip(records, scores.rows, strict=True)
    ]
