"""What a subscription makes of an event: whether it wants it, and what it starts or resumes with it.

Pure: it is handed the subscription's row and the event's payload. Rows are read once for each time they change.
"""

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from app.contracts import LONGEST_CORRELATION_KEY
from app.db.event_tables import Subscription
from app.db.statuses import SubscriptionMode
from app.subscriptions.narrowing import Narrowed, narrowed
from engine.errors import EngineError
from engine.event_values import EventValue, read_event_value
from engine.filters.matching import Finding, explain, matches
from engine.filters.reading import parse
from engine.filters.tree import Filter
from engine.json_types import JSON, Undefined

LONGEST_NAME = 200
MOST_READ = 4_096


@dataclass(frozen=True, slots=True)
class Explained:
    """Whether an event matches, and what each part said: the properties that narrow, and the filter."""

    holds: bool
    properties: tuple[Narrowed, ...]
    filter: Finding


@dataclass(frozen=True, slots=True)
class ReadSubscription:
    """A subscription ready to be asked. What cannot be worked out raises an `EngineError` with its code."""

    id: UUID
    template_id: UUID
    mode: SubscriptionMode
    signal: str | None
    filter: Filter
    properties: dict[str, Any]
    context_value: EventValue | None
    name_value: EventValue | None
    correlation_value: EventValue | None

    def matches(self, payload: JSON) -> bool:
        """Whether an event with this payload is wanted: by its properties and its filter. Never raises."""
        return all(each.holds for each in narrowed(self.properties, payload)) and matches(self.filter, payload)

    def explain(self, payload: JSON) -> Explained:
        """Why an event is wanted or not; `holds` is what `matches` says."""
        properties = tuple(narrowed(self.properties, payload))
        finding = explain(self.filter, payload, "filter")
        return Explained(finding.holds and all(each.holds for each in properties), properties, finding)

    def context(self, payload: JSON) -> dict[str, Any]:
        """The context that an execution starts with: the payload, unless the subscription says otherwise.

        Raises CONTEXT_INVALID when it is no object, and what an expression raises.
        """
        found = payload if self.context_value is None else self.context_value.of(payload)
        if not isinstance(found, dict):
            what = "the payload" if self.context_value is None else "what `context` comes to"
            raise EngineError("CONTEXT_INVALID", f"A context is an object, and {what} is none.", "context")
        return found

    def name(self, payload: JSON) -> str | None:
        """The execution's name, at most 200 characters; None to have it named after its template.

        Raises NAME_INVALID when it is neither text nor a number, and what an expression raises.
        """
        found = None if self.name_value is None else self.name_value.of(payload)
        text = _text(found, "NAME_INVALID", "name")
        return text.strip()[:LONGEST_NAME].rstrip() or None if text else None

    def correlation_key(self, payload: JSON) -> str | None:
        """What tells executions of the template apart: an event goes to the one that has the same key. None when the
        subscription has no correlation key. A number is its text, so 42 and "42" are one key.

        Raises CORRELATION_KEY_INVALID when there is none in the payload, it is no text or number, or is longer than
        400 characters, and what an expression raises.
        """
        if self.correlation_value is None:
            return None
        text = _text(self.correlation_value.of(payload), "CORRELATION_KEY_INVALID", "correlationKey")
        if not text or text.isspace():
            raise EngineError("CORRELATION_KEY_INVALID", "The event has no correlation key.", "correlationKey")
        if len(text) > LONGEST_CORRELATION_KEY:
            message = f"A correlation key has at most {LONGEST_CORRELATION_KEY} characters."
            raise EngineError("CORRELATION_KEY_INVALID", message, "correlationKey")
        return text


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it was at some time; the same id and time are the same row."""

    id: UUID
    updated_at: datetime
    row: Subscription = field(compare=False)


def read_subscription(row: Subscription) -> ReadSubscription:
    """The subscription of a row, cached by its id and the time of its last change.

    Raises FILTER_INVALID or EXPRESSION_INVALID for a row that was not checked when it was saved.
    """
    return _read(_Row(row.id, row.updated_at, row))


@lru_cache(maxsize=MOST_READ)
def _read(key: _Row) -> ReadSubscription:
    row = key.row
    return ReadSubscription(
        id=row.id,
        template_id=row.template_id,
        mode=SubscriptionMode(row.mode),
        signal=row.signal,
        filter=parse(row.filter, "filter"),
        properties=dict(row.properties),
        context_value=_value(row.context, "context"),
        name_value=_value(row.name, "name"),
        correlation_value=_value(row.correlation_key, "correlationKey"),
    )


def _value(raw: JSON, path: str) -> EventValue | None:
    if raw is None:
        return None
    value, problems = read_event_value(raw, path)
    if problems:
        raise EngineError(problems[0].code, problems[0].message, problems[0].path)
    return value


def _text(found: JSON | Undefined, code: str, path: str) -> str | None:
    match found:
        case None | Undefined():
            return None
        case bool():
            raise EngineError(code, "It is text or a number, not true or false.", path)
        case str():
            return found
        case int():
            return str(found)
        case float():
            return str(int(found)) if found.is_integer() else repr(found)
        case _:
            raise EngineError(code, "It is text or a number, neither a list nor an object.", path)
