"""The options of a form's fields, resolved: those that stand in the form, and those that are rows of a table."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncpg.exceptions import DataError
from sqlalchemy import Select, TableClause, Text, cast, column, or_, select, table
from sqlmodel import SQLModel

from app.canonical import canonical_json
from app.connections.opening import Connections
from app.connections.selecting import Written, rows_of_select
from app.db.session import Connection
from app.errors import Invalid, NotFound
from app.forms.fields import ChoiceField, CollectionField, DatabaseSource, Form, FormField, LocatorField, StaticSource
from app.forms.rows import condition_of
from app.registry.trigger_schemas import OptionView
from app.settings import OWN_CONNECTION
from app.wire import bad_cursor, decode_cursor, encode_cursor
from engine.filters.reading import parse

MOST_CACHED: Final = 1_000
FARTHEST: Final = 10_000
# Seconds.
STATEMENT_WITHIN: Final = 10.0
# The columns of what is asked of PostgreSQL.
VALUE, LABEL = "value", "label"

_COLUMNS: Final = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS written
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""

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

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._cached: OrderedDict[str, tuple[float, Page]] = OrderedDict()

    async def read(self, source: Source, asked: Asked) -> Page:
        """One page of options, and the token of the next.

        Raises CURSOR_INVALID, CONNECTION_UNKNOWN, CONNECTION_UNREACHABLE, CONNECTION_NOT_PERMITTED, QUERY_TIMED_OUT,
        TABLE_UNKNOWN, TABLE_NOT_READABLE, COLUMN_UNKNOWN, OPTIONS_VALUE_MISSING, OPTIONS_VALUE_INVALID.
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
        async with self._connections.reading(source.connection, STATEMENT_WITHIN) as connection:
            rows = await _table(connection, source)
            statement = _selected(rows, source, asked).offset(start).limit(asked.limit + 1)
            try:
                found = await rows_of_select(connection, statement)
            except DataError as error:
                message = "A value that the options depend on does not fit its column."
                raise Invalid("OPTIONS_VALUE_INVALID", message) from error
        return [OptionView(name=row[LABEL] or str(row[VALUE]), value=_plain(row[VALUE])) for row in found]


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


async def _table(connection: Connection, source: DatabaseSource) -> TableClause:
    """The table with its columns. Raises TABLE_UNKNOWN, COLUMN_UNKNOWN."""
    described = await connection.fetch(_COLUMNS, source.schema_, source.table)
    if not described:
        raise Invalid("TABLE_UNKNOWN", f"There is no table {source.schema_}.{source.table}.")
    rows = table(
        source.table, *(column(one["name"], Written(one["written"])) for one in described), schema=source.schema_
    )
    label = source.label_column or source.value_column
    for name in {source.value_column, label, source.order_by or label}:
        if name not in rows.c:
            raise Invalid("COLUMN_UNKNOWN", f"There is no column {name} in {source.schema_}.{source.table}.")
    return rows


def _selected(rows: TableClause, source: DatabaseSource, asked: Asked) -> Select[Any]:
    """The rows that are asked for, in their order. Raises COLUMN_UNKNOWN, OPTIONS_VALUE_MISSING."""
    label_name = source.label_column or source.value_column
    value, label = rows.c[source.value_column], cast(rows.c[label_name], Text)
    statement = select(value.label(VALUE), label.label(LABEL)).where(
        value.is_not(None), condition_of(parse(source.where), dict(rows.c), asked.values)
    )
    if asked.text is not None:
        statement = statement.where(or_(label.icontains(asked.text, autoescape=True), cast(value, Text) == asked.text))
    order = rows.c[source.order_by or label_name]
    return statement.order_by(order.desc() if source.descending else order, cast(value, Text))


def _plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)


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
