"""The tool `sql`: queries of a SQLite data base, read-only or a copy per trajectory."""

import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from verl_lite.errors import ConfigError
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.environments.contract import ToolError, tool

# what a query may not do, whatever the mode: reach other files, or load code
_DENIED = (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)


class SqlOptions(ConfigModel):
    """Which data base. A relative path starts at the working folder."""

    database: Path = Field(description="the SQLite file")
    mode: Literal["read_only", "copy"] = Field(
        default="read_only", description="copy: each trajectory writes to a copy of its own"
    )
    max_rows: int = Field(default=50, gt=0, description="rows that a call returns at most")


@tool("sql", options=SqlOptions)
class Sql:
    """Run one SQL statement on the SQLite data base; returns its rows as a table."""

    def __init__(self, options: SqlOptions) -> None:
        if not options.database.expanduser().is_file():
            raise ConfigError(
                f"tool sql: there is no file {options.database}; a relative path starts at the working folder"
            )
        self._options = options
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._connection: sqlite3.Connection | None = None

    def open(self) -> "Sql":
        return Sql(self._options)

    def __call__(self, query: Annotated[str, Field(description="one SQL statement")]) -> str:
        if self._connection is None:
            self._connection = self._connect()
        try:
            cursor = self._connection.execute(query)
            rows = cursor.fetchmany(self._options.max_rows + 1)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise ToolError(f"Error: {error}") from None
        if cursor.description is None:
            return f"{max(cursor.rowcount, 0)} rows changed"
        return self._table([column[0] for column in cursor.description], rows)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _connect(self) -> sqlite3.Connection:
        path = self._options.database.expanduser().resolve()
        if self._options.mode == "copy":
            self._folder = tempfile.TemporaryDirectory(prefix="verl-lite-sql-", ignore_cleanup_errors=True)
            path = Path(shutil.copy(path, self._folder.name))
            connection = sqlite3.connect(path, isolation_level=None)
        else:
            connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_DENY if action in _DENIED else sqlite3.SQLITE_OK
        )
        return connection

    def _table(self, names: list[str], rows: list[tuple[object, ...]]) -> str:
        shown = rows[: self._options.max_rows]
        lines = [" | ".join(names), *(" | ".join(map(_cell, row)) for row in shown)]
        if len(rows) > len(shown):
            lines.append(f"[more than {len(shown)} rows: the rest is not shown]")
        return "\n".join(lines) if shown else f"{lines[0]}\n[no rows]"


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value).replace("\n", "\\n")
