"""The options of a form's fields, resolved: those that stand in the form, and those that are rows of a table."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from asyncpg.exceptions import InterfaceError, PostgresError
from pydantic import SecretStr
from sqlalchemy import Text, cast, column, inspect, or_, select, table, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchTableError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from app.canonical import canonical_json
from app.db.session import Database, driver_url, sqlstate
from app.errors import AppError, Invalid, NotFound, Unavailable
from app.forms.fields import ChoiceField, CollectionField, DatabaseSource, Form, FormField, LocatorField, StaticSource
from app.forms.rows import condition_of
from app.registry.trigger_schemas import OptionView
from app.settings import OWN_CONNECTION
from app.wire import bad_cursor, decode_cursor, encode_cursor
from engine.filters.reading import parse

MOST_CACHED: Final = 1_000
FARTHEST: Final = 10_000
CONNECT_WITHIN: Final = 5.0
STATEMENT_WITHIN: Final = 10.0

# Of Millrace's own tables only these: others hold contexts, payloads and secrets.
_OWN_TABLES = frozenset({"workflow_template", "action", "trigger_definition"})
_CATALOGUE = frozenset({"tables", "columns", "schemata"})

Source = StaticSource | DatabaseSource
Page = tuple[list[OptionView], str | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What options are asked for: what they depend on, a text that is looked for, and the part of the list."""

    values: Mapping[str, Any]
    text: str | None = None
    token: str | None = None
    limit: int = 100


class OptionReader:
    """Reads options, and remembers rows as long as their source says."""

    def __init__(self, database: Database, connections: Mapping[str, SecretStr]) -> None:
        self._database = database
        self._connections = connections
        self._cached: OrderedDict[str, tuple[float, Page]] = OrderedDict()

    async def read(self, source: Source, asked: Asked) -> Page:
        """One page of options, and the token of the next.

        Raises CURSOR_INVALID, CONNECTION_UNKNOWN, CONNECTION_UNREACHABLE, TABLE_UNKNOWN, COLUMN_UNKNOWN,
        OPTIONS_VALUE_MISSING, OPTIONS_VALUE_INVALID, TABLE_NOT_READABLE.
        """
        start = _start(asked.token)
        if isinstance(source, StaticSource):
            choices = [
                OptionView(name=each.name, value=each.value, description=each.description)
                for each in source.options
                if asked.text is None or asked.text.casefold() in each.name.casefold()
            ]
            return _page(choices[start : start + asked.limit + 1], start, asked.limit)
        key = canonical_json([source.model_dump(), dict(asked.values), asked.text, start, asked.limit])
        known = self._cached.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        page = _page(await self._rows(source, asked, start), start, asked.limit)
        if source.cache and source.cache_ttl:
            self._cached[key] = (time.monotonic() + source.cache_ttl, page)
            if len(self._cached) > MOST_CACHED:
                self._cached.popitem(last=False)
        return page

    async def _rows(self, source: DatabaseSource, asked: Asked, start: int) -> list[OptionView]:
        _check_readable(source)
        async with self._connected(source.connection) as connection:
            await connection.execute(text("SET TRANSACTION READ ONLY"))
            return await _read_rows(connection, source, asked, start)

    @asynccontextmanager
    async def _connected(self, name: str) -> AsyncIterator[AsyncConnection]:
        engine = None
        if name != OWN_CONNECTION:
            url = self._connections.get(name)
            if url is None:
                raise Invalid("CONNECTION_UNKNOWN", f"There is no connection {name}.")
            engine = _engine(name, url)
        try:
            async with (engine or self._database.engine).connect() as connection, connection.begin():
                yield connection
        except (OSError, TimeoutError, PoolTimeout, PostgresError, InterfaceError) as error:
            message = f"The database of connection {name} cannot be reached ({type(error).__name__})."
            raise Unavailable("CONNECTION_UNREACHABLE", message) from error
        except DBAPIError as error:
            meaning = _meaning(name, sqlstate(error))
            if meaning is None:
                raise
            raise meaning from error
        finally:
            if engine is not None:
                await engine.dispose()


def _engine(name: str, url: SecretStr) -> AsyncEngine:
    try:
        address = driver_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        # What SQLAlchemy says of it may hold the password.
        raise Invalid("CONNECTION_INVALID", f"The URL of connection {name} cannot be read.") from None
    limits = {"timeout": CONNECT_WITHIN, "command_timeout": STATEMENT_WITHIN}
    return create_async_engine(address, poolclass=NullPool, connect_args=limits)


def source_of_property(form: Form, path: str) -> Source:
    """Where the options of a property come from; members of a collection are named `a.b`. Raises OPTIONS_NOT_FOUND."""
    name, _, rest = path.partition(".")
    field = next((each for each in form if each.name == name), None)
    if rest and isinstance(field, CollectionField):
        return source_of_property(tuple(field.options), rest)
    found = None if field is None or rest else next(_sources(field), None)
    if found is None:
        raise NotFound("options", f"of a property {path}")
    return found[1]


def source_of_method(form: Form, method: str) -> Source:
    """Where the options come from that a field loads, or searches, by a method. Raises OPTIONS_NOT_FOUND."""
    for field in _all(form):
        for methods, source in _sources(field):
            if method in methods:
                return source
    raise NotFound("options", f"by a method {method}")


def _all(form: Sequence[FormField]) -> Iterator[FormField]:
    for field in form:
        yield field
        if isinstance(field, CollectionField):
            yield from _all(field.options)


def _sources(field: FormField) -> Iterator[tuple[set[str | None], Source]]:
    """The sources of a field, each with the methods it answers to."""
    own = {field.type_options.load_options_method, field.type_options.search_list_method} - {None}
    if isinstance(field, ChoiceField):
        yield own, field.data_source or StaticSource(type="static", options=field.options)
    if isinstance(field, LocatorField):
        for mode in field.modes:
            if mode.data_source is not None:
                named = {mode.type_options.load_options_method, mode.type_options.search_list_method} - {None}
                yield named | own, mode.data_source


def _check_readable(source: DatabaseSource) -> None:
    refused = source.schema_.startswith("pg_") or (
        source.schema_ == "information_schema" and source.table not in _CATALOGUE
    )
    own = source.connection == OWN_CONNECTION and source.table in SQLModel.metadata.tables
    if refused or (own and source.table not in _OWN_TABLES):
        raise Invalid("TABLE_NOT_READABLE", f"Options are not read from {source.schema_}.{source.table}.")


async def _read_rows(connection: AsyncConnection, source: DatabaseSource, asked: Asked, start: int) -> list[OptionView]:
    try:
        described = await connection.run_sync(
            lambda plain: inspect(plain).get_columns(source.table, schema=source.schema_)
        )
    except NoSuchTableError as error:
        raise Invalid("TABLE_UNKNOWN", f"There is no table {source.schema_}.{source.table}.") from error
    rows = table(source.table, *(column(one["name"], one["type"]) for one in described), schema=source.schema_)
    label_name = source.label_column or source.value_column
    for name in {source.value_column, label_name, source.order_by or label_name}:
        if name not in rows.c:
            raise Invalid("COLUMN_UNKNOWN", f"There is no column {name} in {source.schema_}.{source.table}.")
    value, label = rows.c[source.value_column], cast(rows.c[label_name], Text)
    statement = select(value, label).where(
        value.is_not(None), condition_of(parse(source.where), dict(rows.c), asked.values)
    )
    if asked.text is not None:
        statement = statement.where(or_(label.icontains(asked.text, autoescape=True), cast(value, Text) == asked.text))
    order = rows.c[source.order_by or label_name]
    statement = statement.order_by(order.desc() if source.descending else order, cast(value, Text))
    found = await connection.execute(statement.offset(start).limit(asked.limit + 1))
    return [OptionView(name=shown or str(held), value=_plain(held)) for held, shown in found]


def _plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)


def _meaning(name: str, state: str) -> AppError | None:
    """What an SQLSTATE is to users; None when it is a bug."""
    match state[:2]:
        case "22":
            return Invalid("OPTIONS_VALUE_INVALID", "A value that the options depend on does not fit its column.")
        case "42" if state == "42501":
            return Invalid("TABLE_NOT_READABLE", f"The database of connection {name} does not permit it.")
        case "" | "08" | "28" | "3D" | "53" | "57":
            return Unavailable("CONNECTION_UNREACHABLE", f"The database of connection {name} cannot be reached.")
        case _:
            return None


def _start(token: str | None) -> int:
    if token is None:
        return 0
    written = decode_cursor(token, 1)[0]
    if not written.isdecimal() or int(written) > FARTHEST:
        raise bad_cursor()
    return int(written)


def _page(found: list[OptionView], start: int, limit: int) -> Page:
    following = start + limit
    more = len(found) > limit and following <= FARTHEST
    return found[:limit], encode_cursor(str(following)) if more else None
