"""SQL by execution: `sql` compares the rows a query finds with those of the reference query."""

import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from verl_lite.plugins.builtin.sql_engines import ENGINES, MISSING, Database, QueryError, Result
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome
from verl_lite.verifiers import find_tagged

_BLOCK = re.compile(r"```(?:sql|sqlite|duckdb)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_ORDERED = re.compile(r"\border\s+by\b(?![^()]*\))", re.IGNORECASE)


class SqlOptions(ConfigModel):
    """Which engine runs the queries, and where a row's database is.

    Row order counts where the reference says ORDER BY; column names never do. A query that reads no table,
    where the reference reads one, is a guess of the result. Several databases must all agree.
    """

    engine: Literal["sqlite", "duckdb"] = Field(default="sqlite", description="duckdb needs verl-lite[sql]")
    script_column: str = Field(
        default="schema",
        description="the column with the SQL that makes the database (CREATE, INSERT), or a list of several",
    )
    folder: str = Field(
        default="",
        description="a folder of databases instead, as in Spider: NAME/NAME.sqlite or NAME.sqlite in it",
    )
    name_column: str = Field(default="db_id", description="the column with the database's NAME")
    tolerance: float = Field(default=1e-6, ge=0, description="relative, between numbers")

    @model_validator(mode="after")
    def _has_its_package(self) -> "SqlOptions":
        if self.engine == "duckdb" and find_spec("duckdb") is None:
            raise ValueError(MISSING)
        return self


@reward("sql", options=SqlOptions)  # isolated: a query can run for hours
def sql_reward(rollout: Rollout, options: SqlOptions) -> Score:
    """1.0 when the query finds the rows that a reference query finds, else 0.0; abstains without one."""
    references = rollout.references
    if not references:
        return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference query")
    try:
        databases = _databases(rollout, options)
        expected = [[_expected(database, one, options) for database in databases] for one in references]
    except ValueError as error:
        return Score.failed(ScoreOutcome.ERROR, f"bad row: {error}"[:500])
    query = _query(rollout.completion)
    if not query:
        return Score(0.0, reason="no query was found")
    run = ENGINES[options.engine]
    try:
        found = [run(database, query) for database in databases]
    except QueryError as error:
        return Score(0.0, reason=f"the query fails: {error}"[:300])
    for query_text, results in zip(references, expected, strict=True):
        ordered = _ORDERED.search(query_text) is not None
        if all(
            _same(one, other, ordered, options.tolerance) for one, other in zip(found, results, strict=True)
        ):
            return Score(1.0)
    rows = f"{len(found[0].rows)} rows, expected {len(expected[0][0].rows)}"
    return Score(0.0, reason=f"other rows: {rows}")


def _expected(database: Database, query: str, options: SqlOptions) -> Result:
    try:
        return ENGINES[options.engine](database, query.strip().rstrip(";"))
    except QueryError as error:
        raise ValueError(f"the reference query fails: {error}") from None


def _databases(rollout: Rollout, options: SqlOptions) -> list[Database]:
    if options.folder:
        name = str(rollout.columns.get(options.name_column) or "")
        if not re.fullmatch(r"[\w.-]+", name) or name.strip(".") == "":
            raise ValueError(f"the column {options.name_column!r} names no database: {name!r:.60}")
        folder = Path(options.folder)
        files = [
            folder / part
            for part in (f"{name}/{name}.sqlite", f"{name}.sqlite", f"{name}.db", f"{name}.duckdb")
        ]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise ValueError(f"there is no database {files[0]}")
        return [Database(file=found)]
    script = rollout.columns.get(options.script_column)
    scripts = [script] if isinstance(script, str) else script
    if not isinstance(scripts, (list, tuple)) or not scripts or not all(isinstance(s, str) for s in scripts):
        raise ValueError(f"the column {options.script_column!r} holds no SQL that makes a database")
    return [Database(script=one) for one in scripts]


def _query(completion: str) -> str:
    """The last code block, else the last <answer>, else all of it."""
    blocks = _BLOCK.findall(completion) or [mark.content for mark in find_tagged(completion, "answer")]
    return (blocks[-1] if blocks else completion).strip().rstrip(";").strip()


def _same(found: Result, expected: Result, ordered: bool, tolerance: float) -> bool:
    if len(found.rows) != len(expected.rows) or (expected.tables and not found.tables):
        return False
    one, other = found.rows, expected.rows
    if not ordered:
        one, other = sorted(one, key=_key), sorted(other, key=_key)
    return all(_same_row(row, wanted, tolerance) for row, wanted in zip(one, other, strict=True))


def _same_row(found: Sequence[object], expected: Sequence[object], tolerance: float) -> bool:
    return len(found) == len(expected) and all(
        _same_value(one, other, tolerance) for one, other in zip(found, expected, strict=True)
    )


def _same_value(found: object, expected: object, tolerance: float) -> bool:
    try:
        if not isinstance(found, (str, bytes)) and not isinstance(expected, (str, bytes)):
            return math.isclose(found, expected, rel_tol=tolerance, abs_tol=1e-12)  # type: ignore[arg-type]
    except TypeError:
        pass
    return found == expected


def _key(row: Sequence[object]) -> list[tuple[str, float, str]]:
    """Sorts mixed kinds; numbers by size, rounded so that nearly equal ones sort alike."""
    keys = []
    for value in row:
        try:
            number = float(f"{float(value):.6g}") if not isinstance(value, (str, bytes)) else None  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = None
        keys.append(("number", number, "") if number is not None else (type(value).__name__, 0.0, str(value)))
    return keys
