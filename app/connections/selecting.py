"""What somebody's SELECT gives, as JSON: the same of the same row wherever Millrace reads it.

PostgreSQL writes each row as JSON itself, as it does for the outbox, and `column_values` reads it: numbers where a
double holds them exactly, times in ISO 8601, what is nested too deep as text. For that the query stands in another one,
where nothing but a query can stand: what changes data is refused whatever the connection's user may do.
"""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

from asyncpg.exceptions import PostgresSyntaxError
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.types import UserDefinedType

from app.canonical import canonical_json
from app.connections.column_values import read_json
from app.connections.failures import judged
from app.db.session import Connection
from app.errors import Invalid
from app.untrusted import DEEPEST

# Rows that are fetched from a server-side cursor at once.
FETCHED: Final = 500
_CURSOR: Final = ":cursor"
_NO_QUERY: Final = "Only a query can be asked: SELECT, VALUES or WITH … SELECT."
_NO_PARAMETERS: Final = "A query has no parameters, such as $1; of a poll's, `:cursor` is its cursor."
# A cursor, an end of the statement, and what neither of them is in: texts, quoted names, comments.
_TOKENS: Final = re.compile(
    r"""(?<!\w)[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "[^"]*" | --[^\n]* | /\*.*?\*/ | \$(\w*)\$.*?\$\1\$
    | (?<![:\w]):cursor\b | ;""",
    re.DOTALL | re.VERBOSE,
)

_DIALECT: Final[Any] = PGDialect_asyncpg()  # type: ignore[no-untyped-call]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT for one statement of PostgreSQL; `takes_cursor` when it has a parameter, $1, where `:cursor` stood."""

    text: str
    takes_cursor: bool


class Written(UserDefinedType[Any]):
    """A type under the name that PostgreSQL gives it (`format_type`)."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        """The type as SQL has it."""
        return self.name


def read_query(text: str) -> Query:
    """The query in a text, with `:cursor` for what is different each time."""
    found = _TOKENS.sub(lambda token: "$1" if token[0] == _CURSOR else token[0], text)
    return Query(found, found != text)


async def columns_of(connection: Connection, name: str, query: Query) -> list[str]:
    """The names of the query's columns, in a transaction of `Connections.reading`.

    Raises QUERY_REFUSED: for what is no SELECT, and for columns that have the same name, of which a row would lose one.
    """
    with judged(name):
        # First as it stands, so that what PostgreSQL says is about what was written.
        statement = await connection.prepare(query.text)
        if len(statement.get_parameters()) != query.takes_cursor:
            raise Invalid("QUERY_REFUSED", _NO_PARAMETERS)
        columns = [column.name for column in statement.get_attributes()]
        if not columns:
            raise Invalid("QUERY_REFUSED", _NO_QUERY)
        if len({*columns}) < len(columns):
            said = f"The query must name every column, each differently: {', '.join(columns)}."
            raise Invalid("QUERY_REFUSED", said)
        await _prepared(connection, _as_json(query.text))
    return columns


async def try_query(connection: Connection, name: str, query: Query) -> list[str]:
    """The names of the query's columns; no row is read, but PostgreSQL says whether the connection's user may do so.

    Raises QUERY_REFUSED, CONNECTION_NOT_PERMITTED.
    """
    columns = await columns_of(connection, name, query)
    with judged(name):
        await connection.fetch(f"{_as_json(query.text)}\nLIMIT 0", *([None] if query.takes_cursor else []))
    return columns


async def rows_of(connection: Connection, name: str, query: Query, cursor: Any = None) -> AsyncGenerator[Row]:
    """The rows by column, a few in memory at a time, in a transaction of `Connections.reading`; `cursor` is JSON.

    Raises QUERY_REFUSED, QUERY_TIMED_OUT and what else `told` does.
    """
    with judged(name):
        statement = await _prepared(connection, _as_json(query.text))
        given: list[Any] = []
        if query.takes_cursor:
            statement, given = await _taking(connection, statement, cursor)
        try:
            portal = await statement.cursor(*given)
        except ValueError as error:
            # From asyncpg, which writes lists itself.
            raise Invalid("QUERY_REFUSED", f"The cursor does not fit into the query: {error}.") from error
        while batch := await portal.fetch(FETCHED):
            for record in batch:
                yield as_row(record[0])


async def rows_of_select(connection: Connection, statement: Select[Any]) -> list[Row]:
    """The rows of a statement of ours, by column, all of them. Raises what asyncpg does."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    given = compiled.params
    found = await connection.fetch(_as_json(str(compiled)), *(given[name] for name in compiled.positiontup or ()))
    return [as_row(record[0]) for record in found]


def as_row(text: str) -> Row:
    """A row that PostgreSQL has written as JSON."""
    # One level more: the row itself, around what stands in its columns.
    row: Row = read_json(text, DEEPEST + 1)
    return row


def _as_json(query: str) -> str:
    """The statement that gives each row of a query as JSON."""
    # PostgreSQL takes one statement only, so what comes after its end is comments.
    whole = _TOKENS.sub(lambda token: "" if token[0] == ";" else token[0], query)
    return f"SELECT row_to_json(millrace_row.*)::text FROM (\n{whole}\n) AS millrace_row"


async def _prepared(connection: Connection, statement: str) -> "PreparedStatement[Any]":
    try:
        return await connection.prepare(statement)
    except PostgresSyntaxError as error:
        # It was accepted as it stood, so it is a statement, and no query.
        raise Invalid("QUERY_REFUSED", _NO_QUERY) from error


async def _taking(
    connection: Connection, statement: "PreparedStatement[Any]", cursor: Any
) -> tuple["PreparedStatement[Any]", list[Any]]:
    """The statement and its parameter, which PostgreSQL reads from text, as it would read a literal of its type."""
    kind = statement.get_parameters()[0]
    if kind.kind == "array":
        return statement, [cursor]
    if kind.kind != "scalar":
        message = f"The cursor cannot be of the type {kind.name}; write :cursor::text::{kind.name}."
        raise Invalid("QUERY_REFUSED", message)
    await connection.set_type_codec(kind.name, schema=kind.schema, encoder=str, decoder=str, format="text")
    return await connection.prepare(statement.get_query()), [_written(cursor)]


def _written(cursor: Any) -> str | None:
    match cursor:
        case None | str():
            return cursor
        case float() if cursor.is_integer():
            return str(int(cursor))
        case _:
            return canonical_json(cursor)
