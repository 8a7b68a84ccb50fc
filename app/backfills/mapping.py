"""From a row of a source to what is started for it: ids, name and context, by column or by an expression."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from app.backfills.rows import BadRow, Read, SourceRow, clipped
from app.errors import Invalid
from engine.errors import ClockExceeded, EngineError, ExpressionError
from engine.expression import Expression, Moment, compile_expression, evaluate

ROW = "__trigger__"

LONGEST_EVENT_ID = 400
LONGEST_ID = 200


@dataclass(frozen=True, slots=True)
class Loadable:
    """What is to be started for a row."""

    number: int
    context: dict[str, Any]
    event_id: str | None = None
    entity_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which columns say what. Without `context` (name in the context, column) and `expression` all columns are it.

    Only rows whose `time` is at or after `since` and before `until` are taken.
    """

    entity_id: str | None = None
    event_id: str | None = None
    name: str | None = None
    time: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    context: tuple[tuple[str, str], ...] = ()
    expression: Expression | None = None

    def columns(self) -> list[str]:
        """The columns that every row must have."""
        named = [self.entity_id, self.event_id, self.name, self.time, *(column for _, column in self.context)]
        return [name for name in named if name is not None]


class _Bad(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def read_expression(text: str) -> Expression:
    """The expression of a mapping. Raises `Invalid` MAPPING_INVALID when it is none, or sees more than the row."""
    try:
        expression = compile_expression(text)
    except EngineError as error:
        raise Invalid("MAPPING_INVALID", f"The mapping is no expression: {error}") from error
    foreign = sorted({one.root for one in expression.references} - {ROW})
    if foreign:
        raise Invalid("MAPPING_INVALID", f"A mapping sees the row as {ROW}, and no {', '.join(foreign)}.")
    return expression


def read_time(text: str) -> datetime:
    """A moment in ISO 8601; without a zone it is in UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def mapped(row: SourceRow, mapping: Mapping) -> Loadable | BadRow | None:
    """What the row means; None for one outside the mapping's time."""
    try:
        if not _in_time(row, mapping):
            return None
        return Loadable(
            row.number,
            _context(row, mapping),
            _id(row, mapping.event_id, LONGEST_EVENT_ID),
            _id(row, mapping.entity_id, LONGEST_ID),
            _id(row, mapping.name, LONGEST_ID),
        )
    except _Bad as bad:
        return BadRow(row.number, bad.code, bad.message, clipped(row.cells))


def mapped_rows(reads: Iterable[Read], mapping: Mapping, limit: int | None) -> Iterator[Loadable | BadRow]:
    """What the rows mean, `limit` of them at most; those outside the mapping's time are passed over."""
    found = (mapped(read, mapping) if isinstance(read, SourceRow) else read for read in reads)
    yield from islice((row for row in found if row is not None), limit)


def _in_time(row: SourceRow, mapping: Mapping) -> bool:
    if mapping.time is None:
        return True
    written = _cell(row, mapping.time)
    try:
        moment = read_time(written if isinstance(written, str) else "")
    except ValueError:
        raise _Bad("TIME_INVALID", f"{mapping.time} is no time in ISO 8601: {str(written)[:100]!r}.") from None
    return (mapping.since is None or moment >= mapping.since) and (mapping.until is None or moment < mapping.until)


def _context(row: SourceRow, mapping: Mapping) -> dict[str, Any]:
    if mapping.expression is None:
        if not mapping.context:
            return row.cells
        return {name: _cell(row, column) for name, column in mapping.context}
    try:
        context = evaluate(mapping.expression, {ROW: row.cells}, Moment(0, f"row/{row.number}"))
    except ExpressionError as error:
        raise _Bad(error.code, f"The mapping fails: {error.message}") from error
    except ClockExceeded:
        raise _Bad("EXPRESSION_LIMIT", "The mapping takes too long.") from None
    if not isinstance(context, dict):
        raise _Bad("CONTEXT_NOT_AN_OBJECT", "The mapping gives no object for this row.")
    return context


def _id(row: SourceRow, column: str | None, longest: int) -> str | None:
    """The text in a column that says who or which; a number is taken as it is written."""
    if column is None:
        return None
    value = _cell(row, column)
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text:
        raise _Bad("VALUE_MISSING", f"{column} has neither text nor a whole number.")
    if len(text) > longest:
        raise _Bad("VALUE_TOO_LONG", f"{column} may have {longest} characters; this has {len(text)}.")
    return text


def _cell(row: SourceRow, column: str) -> Any:
    if column not in row.cells:
        raise _Bad("VALUE_MISSING", f"The row has no {column}.")
    return row.cells[column]
