"""The registry's entry for a watched table: what templates subscribe to, with a sample made of its real columns."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.changes.catalogue import TableColumn
from app.changes.row_changes import Operation
from app.db.event_tables import TriggerDefinition
from app.db.statuses import EventSource, TriggerCategory
from app.errors import Conflict
from app.subscriptions.narrowing import COLUMNS, MONITOR_COLUMNS, OPERATIONS
from app.trigger_keys import as_trigger_key

SUFFIX: Final = "_db_change"
_SAMPLE_TIME: Final = "2026-01-31T09:00:00+00:00"
_WRITTEN: Final[dict[str, tuple[str, Any]]] = {
    "date": ("dateTime", "2026-01-31"),
    "json": ("any", {}),
    "jsonb": ("any", {}),
}
# By the letter of the type's category; what is not here is text.
_CATEGORIES: Final[dict[str, tuple[str, Any]]] = {
    "A": ("array", []),
    "B": ("boolean", True),
    "D": ("dateTime", _SAMPLE_TIME),
    "N": ("number", 1),
}
# Columns are text, not options: they come and go while the table is watched.
_OPERATIONS: Final[dict[str, Any]] = {
    "name": OPERATIONS,
    "displayName": "Operations",
    "type": "multiOptions",
    "options": [{"name": word, "value": word} for word in Operation],
    "hint": "All, unless some are chosen.",
}
_MONITOR: Final[dict[str, Any]] = {
    "name": MONITOR_COLUMNS,
    "displayName": "Only if these columns change",
    "type": "boolean",
    "default": True,
}
_COLUMNS: Final[dict[str, Any]] = {
    "name": COLUMNS,
    "displayName": "Columns",
    "type": "string",
    "typeOptions": {"multipleValues": True},
    "hint": "An UPDATE counts only if it changed one of these; every one does without any.",
}


async def free_key(session: AsyncSession, connection: str, schema: str, table: str) -> str:
    """`<table>_db_change`, with the schema before it unless that is public, and with the connection where it is taken.

    Raises TRIGGER_KEY_TAKEN.
    """
    short = as_trigger_key(f"{table if schema == 'public' else f'{schema}_{table}'}{SUFFIX}")
    for key in (short, as_trigger_key(f"{connection}_{short}")):
        taken = await session.execute(select(col(TriggerDefinition.id)).where(col(TriggerDefinition.key) == key))
        if taken.first() is None:
            return key
    raise Conflict("TRIGGER_KEY_TAKEN", f"There are triggers {short} and {connection}_{short} already.")


def definition(
    key: str, connection: str, schema: str, table: str, columns: Sequence[TableColumn], *, whole_before: bool
) -> TriggerDefinition:
    """The registry's entry. Without the whole row before nobody knows which columns an UPDATE changed, so that
    subscriptions cannot ask for them.
    """
    return TriggerDefinition(
        key=key,
        name=f"Changes of {table}",
        description=f"Rows of {schema}.{table} of the connection {connection} that are inserted, updated or deleted.",
        category=TriggerCategory.DATABASE,
        source=EventSource.ROW_CHANGE,
        properties=[_OPERATIONS, _MONITOR, _COLUMNS] if whole_before else [_OPERATIONS],
        sample_payload=_sample(connection, schema, table, columns),
        variables=_variables(columns),
    )


def _sample(connection: str, schema: str, table: str, columns: Sequence[TableColumn]) -> dict[str, Any]:
    row = {column.name: _kind(column)[1] for column in columns}
    return {
        "operation": "UPDATE",
        "schema": schema,
        "table": table,
        "timestamp": _SAMPLE_TIME,
        "before": row,
        "after": row,
        "changed_columns": [column.name for column in columns if not column.key][:1],
        "metadata": {"lsn": "0/16B3748", "txid": 753, "source": connection, "method": "REPLICATION"},
    }


def _variables(columns: Sequence[TableColumn]) -> list[dict[str, Any]]:
    fixed = [
        ("operation", "string", "INSERT, UPDATE or DELETE"),
        ("schema", "string", "the table's schema"),
        ("table", "string", "the table"),
        ("timestamp", "dateTime", "when the change was committed"),
        ("before", "object", "the row before; null on INSERT"),
        ("after", "object", "the row after; null on DELETE"),
        ("changed_columns", "array", "what an UPDATE changed; null where it is not known"),
        ("metadata", "object", "lsn, txid, source, method"),
    ]
    return [{"path": path, "type": kind, "description": text} for path, kind, text in fixed] + [
        {"path": _path(image, column.name), "type": _kind(column)[0], "description": column.written}
        for image in ("before", "after")
        for column in columns
    ]


def _path(image: str, name: str) -> str:
    return f"{image}.{name}" if name.isidentifier() else f'{image}["{name}"]'


def _kind(column: TableColumn) -> tuple[str, Any]:
    return _WRITTEN.get(column.written) or _CATEGORIES.get(column.category, ("string", "text"))
