"""A query on another database, as a source of items."""

import json
import math
import re
from typing import Any

import asyncpg
from asyncpg.exceptions import InterfaceError, PostgresError
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from app.changes.column_values import read_json
from app.db.session import Connection, driver_url
from app.errors import Invalid, Unavailable
from app.schedules.schemas import SqlSource
from app.settings import OWN_CONNECTION, Settings

CURSOR = ":cursor"
# The cursor, and what it is not the cursor in: texts, quoted names, comments.
_TOKENS = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|(?<![:\w]):cursor\b""", re.DOTALL)

_DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]

# As PostgreSQL writes them: nothing is lost on the way into a cursor and out of it.
_AS_TEXT = ("timestamptz", "timestamp", "date", "timetz", "time", "interval", "numeric", "uuid", "inet", "bytea")


async def ask_database(settings: Settings, source: SqlSource, cursor: Any) -> list[dict[str, Any]]:
    """The rows of a query, columns by name; times, numerics and ids as PostgreSQL writes them, JSON like in row
    changes, and what JSON has no number for (NaN, Infinity) as text.

    Raises CONNECTION_UNKNOWN, QUERY_REFUSED, POLL_TOO_MANY, `Unavailable` CONNECTION_FAILED. None of them shows the
    connection's URL.
    """
    query = _TOKENS.sub(lambda found: "$1" if found[0] == CURSOR else found[0], source.query)
    parameters = [cursor] if query != source.query else []
    connection = await _connect(_url(settings, source.connection), settings.polling.timeout)
    try:
        async with connection.transaction(readonly=True):
            rows = connection.cursor(query, *parameters, prefetch=500)
            found: list[dict[str, Any]] = []
            async for row in rows:
                if len(found) == settings.polling.max_items:
                    raise Invalid("POLL_TOO_MANY", f"More than {len(found)} rows: order them and set a LIMIT.")
                found.append({name: _plain(value) for name, value in row.items()})
        return found
    except (PostgresError, asyncpg.DataError) as error:
        raise Invalid("QUERY_REFUSED", str(error)) from error
    except (OSError, TimeoutError, InterfaceError) as error:
        raise _failed(source.connection) from error
    finally:
        connection.terminate()


async def _connect(url: str, within: float) -> Connection:
    try:
        _, given = _DIALECT.create_connect_args(make_url(driver_url(url)))
        options = {name: value for name, value in given.items() if not name.startswith("prepared_statement")}
        connection: Connection = await asyncpg.connect(**options, timeout=within, command_timeout=within)
        for name in _AS_TEXT:
            await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=str, format="text")
        for name in ("json", "jsonb"):
            await connection.set_type_codec(
                name, schema="pg_catalog", encoder=json.dumps, decoder=read_json, format="text"
            )
    except (OSError, TimeoutError, InterfaceError, PostgresError, SQLAlchemyError, ValueError) as error:
        raise _failed(None) from error
    return connection


def _url(settings: Settings, name: str) -> str:
    url = settings.database.url if name == OWN_CONNECTION else settings.connections.get(name)
    if url is None:
        raise Invalid("CONNECTION_UNKNOWN", f"No connection {name} is configured.")
    return url.get_secret_value()


def _failed(name: str | None) -> Unavailable:
    return Unavailable("CONNECTION_FAILED", f"The database {name or 'of the connection'} cannot be reached.")


def _plain(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str() | dict():
            return value
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return str(value)
