"""The options of a form's fields, resolved: those that stand in the form, and those that are rows of a table."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from asyncpg.exceptions import DataError

from app.canonical import canonical_json
from app.connections.failures import judged
from app.connections.opening import Connections
from app.connections.selecting import rows_of_select
from app.errors import Invalid, NotFound
from app.forms.fields import (
    ChoiceField,
    CollectionField,
    DatabaseSource,
    FixedCollectionField,
    Form,
    FormField,
    LocatorField,
    StaticSource,
)
from app.registry.option_rows import LABEL, VALUE, Asked, check_readable, read_table, selected
from app.registry.trigger_schemas import OptionView
from app.wire import bad_cursor, decode_cursor, encode_cursor

MOST_CACHED: Final = 1_000
FARTHEST: Final = 10_000
# Seconds.
STATEMENT_WITHIN: Final = 10.0

Source = StaticSource | DatabaseSource
Page = tuple[list[OptionView], str | None]


class OptionReader:
    """Reads options, and remembers rows as long as their source says."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._cached: OrderedDict[str, tuple[float, Page]] = OrderedDict()

    async def read(self, source: Source, asked: Asked) -> Page:
        """One page of options, and the token of the next.

        Raises CURSOR_INVALID, CONNECTION_UNKNOWN, CONNECTION_UNREACHABLE, CONNECTION_NOT_PERMITTED, QUERY_TIMED_OUT,
        QUERY_REFUSED, TABLE_UNKNOWN, TABLE_NOT_READABLE, COLUMN_UNKNOWN, OPTIONS_VALUE_MISSING, OPTIONS_VALUE_INVALID.
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
        check_readable(source)
        async with self._connections.reading(source.connection, STATEMENT_WITHIN) as connection:
            rows = await read_table(connection, source)
            statement = selected(rows, source, asked).offset(start).limit(asked.limit + 1)
            with judged(source.connection):
                try:
                    found = await rows_of_select(connection, statement)
                except DataError as error:
                    message = "A value that the options depend on does not fit its column."
                    raise Invalid("OPTIONS_VALUE_INVALID", message) from error
        return [OptionView(name=row[LABEL] or str(row[VALUE]), value=_plain(row[VALUE])) for row in found]


def source_of_property(form: Form, path: str) -> Source:
    """Where the options of a property come from; members of collections are named `a.b`, in
    groups `a.group.b`. Raises OPTIONS_NOT_FOUND."""
    name, _, rest = path.partition(".")
    field = next((each for each in form if each.name == name), None)
    if rest and isinstance(field, CollectionField):
        return source_of_property(tuple(field.options), rest)
    if rest and isinstance(field, FixedCollectionField):
        group, _, rest = rest.partition(".")
        parts = [part for each in field.options if each.name == group for part in each.values]
        return source_of_property(tuple(parts), rest)
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
        if isinstance(field, FixedCollectionField):
            for group in field.options:
                yield from _all(group.values)


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


def _plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else canonical_json(value)


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
