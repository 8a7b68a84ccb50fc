"""Which changes of a table are events, and what the event says. Pure: the same for every way a change is told."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.changes.row_changes import Operation, Row, RowChange
from app.db.event_tables import ChangeSource
from app.db.statuses import EventSource
from app.inbox.storing import Incoming
from engine.filters.matching import matches
from engine.filters.reading import parse
from engine.filters.tree import EVERYTHING, Filter

LONGEST_KEY = 120


@dataclass(frozen=True, slots=True)
class Watched:
    """A source as its changes are judged by."""

    id: UUID
    key: str
    connection: str
    method: str
    schema: str
    table: str
    operations: frozenset[str]
    monitored: frozenset[str] = frozenset()
    status_column: str | None = None
    filter: Filter = EVERYTHING
    entity_type: str | None = None
    entity_column: str | None = None
    key_columns: tuple[str, ...] = ()
    # Of the log that the changes' positions are in: another log may have the same positions.
    stream: str = ""
    checkpoint: int = 0


def watched(source: ChangeSource, checkpoint: int = 0) -> Watched:
    """A source's row as its changes are judged by; its filter was checked when it was stored."""
    return Watched(
        id=source.id,
        key=source.key,
        connection=source.connection,
        method=source.method,
        schema=source.table_schema,
        table=source.table_name,
        operations=frozenset(source.operations),
        monitored=frozenset(source.monitored_columns),
        status_column=source.status_column,
        filter=parse(source.filter),
        entity_type=source.entity_type,
        entity_column=source.entity_column,
        key_columns=tuple(source.key_columns),
        stream=source.publication or "",
        checkpoint=checkpoint,
    )


def event_of(source: Watched, change: RowChange) -> Incoming | None:
    """The event that a change is; None for one that the source does not ask for.

    Of an UPDATE whose old row is not known it cannot be said what changed: with a monitor it counts.
    """
    changed = change.changed_columns()
    if not _asked_for(source, change, changed):
        return None
    payload = payload_of(source, change, changed)
    if not matches(source.filter, payload):
        return None
    row = change.after or change.before or {}
    entity_id = row.get(source.entity_column) if source.entity_column else None
    return Incoming(
        source=EventSource.ROW_CHANGE,
        trigger_key=source.key,
        dedupe_key=":".join(part for part in (str(source.id), source.stream, change.key) if part),
        summary=f"{source.table} · {change.operation} · {_identified(source, row)}",
        payload=payload,
        entity_type=source.entity_type if entity_id is not None else None,
        entity_id=None if entity_id is None else str(entity_id)[:200],
    )


def payload_of(source: Watched, change: RowChange, changed: list[str] | None) -> dict[str, Any]:
    """What templates see of a change."""
    metadata = {"lsn": None, "txid": None, "source": source.connection, "method": source.method, **change.position}
    if change.absent:
        metadata["absent_columns"] = list(change.absent)
    if change.before is not None and not change.before_whole:
        metadata["before"] = "key"
    return {
        "operation": change.operation.value,
        "schema": change.schema,
        "table": change.table,
        "timestamp": change.at,
        "before": change.before,
        "after": change.after,
        "changed_columns": changed,
        "metadata": metadata,
    }


def _asked_for(source: Watched, change: RowChange, changed: list[str] | None) -> bool:
    if change.operation not in source.operations:
        return False
    if source.status_column is not None:
        return change.operation is Operation.UPDATE and (changed is None or source.status_column in changed)
    if change.operation is Operation.UPDATE and source.monitored:
        return changed is None or not source.monitored.isdisjoint(changed)
    return True


def _identified(source: Watched, row: Row) -> str:
    """The row's key, or of a table without one what of the row fits."""
    names: Iterable[str] = source.key_columns or [*row][:1]
    return "/".join(str(row.get(name)) for name in names)[:LONGEST_KEY]
