"""One query on a fresh database, read-only: SQLite, and DuckDB (extra `sql`)."""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

MAX_ROWS = 10_000
MAX_STEPS = 50_000_000  # of SQLite's virtual machine
_STEP = 100_000
_ALLOWED = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
MISSING = "engine: duckdb needs the package duckdb: pip install 'verl-lite[sql]'"


class QueryError(ValueError):
    """The query cannot be run, or does what it must not."""


class Result(NamedTuple):
    """`tables`: whether the query read any."""

    rows: list[tuple[object, ...]]
    tables: bool


class Database(NamedTuple):
    """A script that makes the database, or a file of one, which is opened read-only."""

    script: str = ""
    file: Path | None = None


def run_sqlite(database: Database, query: str) -> Result:
    """Raises QueryError for the query's faults, sqlite3.Error for the database's."""
    if database.file is not None:
        connection = sqlite3.connect(f"{database.file.resolve().as_uri()}?mode=ro", uri=True)
    else:
        connection = sqlite3.connect(":memory:")
    read: list[str] = []
    steps = [0]

    def allow(action: int, first: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ and first and not first.startswith("sqlite_"):
            read.append(first)
        refused = action not in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and _[0] == "load_extension")
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    def stop() -> bool:
        steps[0] += _STEP
        return steps[0] > MAX_STEPS

    try:
        if database.script:
            connection.executescript(database.script)
        connection.set_authorizer(allow)
        connection.set_progress_handler(stop, _STEP)
        try:
            rows = connection.execute(query).fetchmany(MAX_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            raise QueryError(str(error)) from None
    finally:
        connection.close()
    return Result(_bounded(rows), bool(read))


def run_duckdb(database: Database, query: str) -> Result:
    """As `run_sqlite`; raises QueryError without duckdb too."""
    import duckdb

    file = str(database.file) if database.file else ":memory:"
    connection = duckdb.connect(file, read_only=database.file is not None)
    try:
        if database.script:
            connection.execute(database.script)
        connection.execute("SET threads=1; SET enable_external_access=false; SET lock_configuration=true")
        try:
            statements = connection.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise QueryError("expected one SELECT")
            tables = bool(connection.get_table_names(query))
            rows = connection.execute(query).fetchmany(MAX_ROWS + 1)
        except (duckdb.Error, RuntimeError) as error:
            raise QueryError(str(error).splitlines()[0]) from None
    finally:
        connection.close()
    return Result(_bounded(rows), tables)


def _bounded(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    if len(rows) > MAX_ROWS:
        raise QueryError(f"more than {MAX_ROWS} rows")
    return rows


ENGINES: Mapping[str, Callable[[Database, str], Result]] = {"sqlite": run_sqlite, "duckdb": run_duckdb}
