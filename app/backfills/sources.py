"""Where the rows of a backfill come from, written down so that the same rows can be read again."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from app.backfills.mapping import Loadable, Mapping, mapped, read_expression, read_time
from app.backfills.rows import BadRow, Read, SourceRow, check_columns, csv_rows, ndjson_rows, query_row
from app.connections.opening import Connections
from app.connections.selecting import FETCHED, Query, columns_of, read_query, rows_of
from app.errors import Invalid
from app.settings import OWN_CONNECTION, Settings

# Seconds until the first rows of a query must be there; it may have to sort all of them.
STATEMENT_WITHIN = 300.0


class Source(BaseModel):
    """A file or a query, how it is read, and which rows of it. Kept with the backfill, so no secret may be in it.

    `context` maps names in the context to columns; `map` is an expression that gives the context. `sha256` is the
    file's, to tell whether it is still the one that was begun with.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    kind: Literal["csv", "ndjson", "sql"]
    file: str | None = None
    sha256: str | None = None
    delimiter: str | None = None
    connection: str | None = None
    query: str | None = None
    entity_id: str | None = None
    event_id: str | None = None
    name: str | None = None
    context: dict[str, str] = {}
    map: str | None = None
    time: str | None = None
    since: str | None = None
    until: str | None = None
    limit: int | None = None

    def mapping(self) -> Mapping:
        """What is made of a row. Raises `Invalid` MAPPING_INVALID, TIME_INVALID."""
        if self.context and self.map is not None:
            raise Invalid("MAPPING_INVALID", "The context comes from columns or from an expression, not from both.")
        if self.time is None and (self.since is not None or self.until is not None):
            raise Invalid("TIME_INVALID", "Say in which column the time is that since and until are about.")
        return Mapping(
            entity_id=self.entity_id,
            event_id=self.event_id,
            name=self.name,
            time=self.time,
            since=None if self.since is None else _time(self.since),
            until=None if self.until is None else _time(self.until),
            context=tuple(self.context.items()),
            expression=None if self.map is None else read_expression(self.map),
        )


def fingerprint(file: Path) -> str:
    """The SHA-256 of a file. Raises `Invalid` FILE_NOT_READABLE."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise Invalid("FILE_NOT_READABLE", f"{file}: {error.strerror or error}") from error


def check_unchanged(source: Source) -> None:
    """Raises SOURCE_CHANGED when the file is no longer the one that was begun with: its numbers mean other rows."""
    if source.file is not None and fingerprint(Path(source.file)) != source.sha256:
        raise Invalid("SOURCE_CHANGED", f"{source.file} has been changed since its backfill was begun.")


def read_source(source: Source, settings: Settings) -> Generator[Loadable | BadRow, None, None]:
    """What is to be started, in the order of the source, and what cannot be.

    Raises FILE_NOT_READABLE, HEADER_INVALID, COLUMN_UNKNOWN, MAPPING_INVALID, TIME_INVALID, CONNECTION_UNKNOWN,
    CONNECTION_UNREACHABLE, CONNECTION_NOT_PERMITTED, QUERY_REFUSED, QUERY_TIMED_OUT.
    """
    mapping = source.mapping()
    given = 0
    for read in _read(source, settings, mapping.columns()):
        row = mapped(read, mapping) if isinstance(read, SourceRow) else read
        if row is None:
            continue
        if source.limit is not None and given == source.limit:
            return
        given += 1
        yield row


def _read(source: Source, settings: Settings, needed: list[str]) -> Iterator[Read]:
    if source.kind == "sql":
        own = settings.database.url
        connections = Connections(None if own is None else own.get_secret_value(), settings.connections)
        asked = _ask(connections, source.connection or OWN_CONNECTION, read_query(source.query or ""), needed)
        yield from _read_with_loop(asked)
        return
    file = Path(source.file or "")
    try:
        # What is not UTF-8 becomes a bad row; only line ends that CSV and JSON know end a line.
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            if source.kind == "csv":
                yield from csv_rows(lines, source.delimiter, needed)
            else:
                yield from ndjson_rows(lines)
    except OSError as error:
        raise Invalid("FILE_NOT_READABLE", f"{file}: {error.strerror or error}") from error


def _read_with_loop(rows: AsyncGenerator[Read]) -> Iterator[Read]:
    """What comes asynchronously, for those who have no event loop; a few rows in memory at a time."""

    async def take() -> list[Read]:
        taken: list[Read] = []
        async for row in rows:
            taken.append(row)
            if len(taken) == FETCHED:
                break
        return taken

    with asyncio.Runner() as runner:
        try:
            while taken := runner.run(take()):
                yield from taken
        finally:
            runner.run(rows.aclose())


async def _ask(connections: Connections, name: str, query: Query, needed: list[str]) -> AsyncGenerator[Read]:
    async with connections.reading(name, STATEMENT_WITHIN) as connection:
        check_columns(await columns_of(connection, name, query), needed)
        async with aclosing(rows_of(connection, name, query)) as rows:
            number = 0
            async for row in rows:
                number += 1
                yield query_row(number, row)


def _time(text: str) -> Any:
    try:
        return read_time(text)
    except ValueError:
        raise Invalid("TIME_INVALID", f"{text!r} is no time in ISO 8601.") from None
