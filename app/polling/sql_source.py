"""A query on another database, as a source of items."""

from contextlib import aclosing
from typing import Any

from app.connections.opening import Connections
from app.connections.selecting import Row, columns_of, read_query, rows_of
from app.errors import Invalid
from app.schedules.schemas import SqlSource
from app.settings import PollingSettings


async def ask_database(
    connections: Connections, source: SqlSource, cursor: Any, settings: PollingSettings
) -> list[Row]:
    """The rows of a query, by column, as `selecting` has them.

    Raises CONNECTION_UNKNOWN, CONNECTION_UNREACHABLE, QUERY_REFUSED, QUERY_TIMED_OUT, POLL_TOO_MANY.
    """
    found: list[Row] = []
    query = read_query(source.query)
    async with (
        connections.reading(source.connection, settings.timeout) as connection,
        aclosing(rows_of(connection, source.connection, query, cursor)) as rows,
    ):
        await columns_of(connection, source.connection, query)
        async for row in rows:
            if len(found) == settings.max_items:
                raise Invalid("POLL_TOO_MANY", f"More than {len(found)} rows: order them and set a LIMIT.")
            found.append(row)
    return found
