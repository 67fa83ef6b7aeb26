"""A cache of scores, keyed by the reward (code, version, options) and the rollout.

One SQLite file. An interrupted run resumes where it stopped; a changed component rescores only itself.
Errors and time-outs are never cached, since they may not happen again. Rewards that are faster than a
look-up are not cached either (`RewardDefinition.cache`).
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from verl_lite.errors import DataError
from verl_lite.plugins import Component, Rollout, Score, ScoredRollout, ScoreOutcome, Scorer
from verl_lite.plugins.records.schema import to_json
from verl_lite.plugins.records.turns import turn_rows

_SCHEMA_VERSION = 2  # raise it when the stored value or the key changes
_MAX_KEYS_PER_QUERY = 500


def default_cache_path() -> Path:
    """`scores.sqlite` in the user's cache folder (XDG_CACHE_HOME), below verl-lite."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "verl-lite" / "scores.sqlite"


def digest(*parts: object) -> bytes:
    """A 16-byte digest of `parts`; equal parts give equal bytes in every process."""
    return hashlib.blake2b(to_json(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def rollout_digest(rollout: Rollout) -> bytes:
    """A digest of everything a reward may read, `id` and `group` included: a reward may look them up."""
    trajectory = [list(turn_rows(rollout).values())] if rollout.turns else []  # others keep their keys
    return digest(
        rollout.id,
        rollout.group,
        rollout.sample_index,
        rollout.prompt,
        rollout.completion,
        rollout.reference,
        rollout.columns,
        rollout.finish_reason,
        rollout.prompt_ids,
        rollout.completion_ids,
        rollout.logprobs,
        rollout.policy_version,
        rollout.token_versions,
        asdict(rollout.sampling),
        *trajectory,
    )


class ScoreCache:
    """Look scores up and keep them. Safe to use from several processes at once; use as a context manager.

    Raises DataError for a file that is not our cache or cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, score TEXT NOT NULL) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"cannot use the score cache {self.path}: {error}; see --cache, --no-cache"
            ) from None

    def get(self, component: bytes, rollouts: Sequence[bytes]) -> list[Score | None]:
        """Each rollout's cached score for this component digest; None where there is none."""
        keys = [_key(component, rollout) for rollout in rollouts]
        found: dict[bytes, str] = {}
        for start in range(0, len(keys), _MAX_KEYS_PER_QUERY):
            part = keys[start : start + _MAX_KEYS_PER_QUERY]
            marks = ",".join("?" * len(part))
            found.update(self._db.execute(f"SELECT key, score FROM scores WHERE key IN ({marks})", part))
        return [Score.of(json.loads(found[key])) if key in found else None for key in keys]

    def put(self, component: bytes, scores: Mapping[bytes, Score]) -> None:
        """Store scores by rollout digest; only the outcomes ok and abstain are kept."""
        kept = [
            (_key(component, rollout), _to_text(score))
            for rollout, score in scores.items()
            if score.outcome in (ScoreOutcome.OK, ScoreOutcome.ABSTAIN)
        ]
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", kept)
        self._db.execute("COMMIT")

    def known(self, scorer: Scorer, rollouts: Sequence[Rollout]) -> list[dict[str, Score]]:
        """Each rollout's cached scores by component name: the `known` of Scorer.score."""
        known: list[dict[str, Score]] = [{} for _ in rollouts]
        for component, fingerprint in _cached_components(scorer):
            kept = self.get(fingerprint, _row_digests(component, rollouts))
            for scores, score in zip(known, kept, strict=True):
                if score is not None:
                    scores[component.name] = score
        return known

    def keep(
        self, scorer: Scorer, rows: Sequence[ScoredRollout], known: Sequence[Mapping[str, Score]]
    ) -> None:
        """Store the scores in `rows` that are not in `known`, except gated ones: those rewards never ran."""
        rollouts = [row.rollout for row in rows]
        for component, fingerprint in _cached_components(scorer):
            keys = _row_digests(component, rollouts)
            fresh = {
                key: row.components[component.name].score
                for key, row, before in zip(keys, rows, known, strict=True)
                if component.name not in before and row.components[component.name].latency_s > 0
            }
            self.put(fingerprint, fresh)

    def __len__(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM scores").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> "ScoreCache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cached_components(scorer: Scorer) -> Iterator[tuple[Component, bytes]]:
    """The components to cache, each with a digest of its code, version and options."""
    sources = scorer.environment()
    for component in scorer.components:
        if component.definition.cache:
            options = component.options.model_dump(mode="json")
            yield component, digest(sources[component.name], options)


def _row_digests(component: Component, rollouts: Sequence[Rollout]) -> list[bytes]:
    """The digest of everything each score depends on: the rollout, or its whole group."""
    own = [rollout_digest(rollout) for rollout in rollouts]
    if component.definition.form != "group":
        return own
    groups: dict[str, list[str]] = {}
    for rollout, key in zip(rollouts, own, strict=True):
        groups.setdefault(rollout.group, []).append(key.hex())
    return [digest(key.hex(), *groups[r.group]) for r, key in zip(rollouts, own, strict=True)]


def _key(component: bytes, rollout: bytes) -> bytes:
    return hashlib.blake2b(bytes([_SCHEMA_VERSION]) + component + rollout, digest_size=16).digest()


def _to_text(score: Score) -> str:
    fields: dict[str, object] = {"value": score.value}
    if score.outcome is not ScoreOutcome.OK:
        fields["outcome"] = score.outcome.value
    if score.reason:
        fields["reason"] = score.reason
    if score.details:
        fields["details"] = score.details
    if score.steps:
        fields["steps"] = [asdict(step) for step in score.steps]
    return to_json(fields)
