"""Changes as Debezium writes them, posted over HTTP: an envelope, or a row that was flattened (`__op`).

Pure. What cannot be told from another change (no position in a log) needs a key from the sender.
"""

from datetime import UTC, datetime
from typing import Any, Final

from app.canonical import digest
from app.changes.row_changes import Operation, RowChange, written
from app.errors import Invalid

_OPERATIONS: Final = {"c": Operation.INSERT, "u": Operation.UPDATE, "d": Operation.DELETE}
# Reads of a snapshot, truncations and messages are no changes of a row.
_PASSED_OVER: Final = {"r", "t", "m"}
_POSITIONS: Final = ("lsn", "pos", "file", "row", "scn", "change_lsn", "commit_lsn", "event_serial_no", "gtid", "ord")
_ORIGINS: Final = ("connector", "name", "db", "schema", "table", "txId")
_FLAT: Final = "__"

Json = dict[str, Any]


def read_event(document: Any, table: str | None, key: str | None, path: str) -> RowChange | None:
    """The change that an event tells; None for a tombstone, a snapshot's read, and what concerns no row.

    `table` is where the event does not name one, `key` what the sender tells it from others by. Raises `Invalid`
    CHANGE_INVALID, TABLE_NOT_NAMED, DEDUPE_KEY_MISSING, with the `path` of the event in the request.
    """
    if isinstance(document, dict) and "payload" in document and document.keys() <= {"schema", "payload"}:
        document = document["payload"]
    if document is None:
        return None
    if not isinstance(document, dict):
        raise _wrong(path, "an event is an object, or null for a tombstone")
    envelope = document if "op" in document else _unflattened(document, path)
    said = envelope["op"] if isinstance(envelope["op"], str) else ""
    if said in _PASSED_OVER:
        return None
    operation = _OPERATIONS.get(said)
    if operation is None:
        raise _wrong(path, "`op` is c, u, d or r")
    source = envelope.get("source") or {}
    if not isinstance(source, dict):
        raise _wrong(path, "`source` is an object")
    before, after = _images(operation, envelope, path)
    name = source.get("table") or source.get("collection") or table
    if not isinstance(name, str):
        raise Invalid("TABLE_NOT_NAMED", "The event names no table; give it by ?table=.", [_problem(path, "no table")])
    schema = source.get("schema")
    return RowChange(
        operation=operation,
        schema=schema if isinstance(schema, str) and schema else "public",
        table=name,
        at=_moment(source.get("ts_ms") or envelope.get("ts_ms")),
        before=before,
        after=after,
        key=_key(envelope, source, name, key, path),
        before_whole=operation is not Operation.UPDATE or before is not None,
        position={"lsn": source.get("lsn") or source.get("pos"), "txid": source.get("txId")},
    )


def _unflattened(row: Json, path: str) -> Json:
    """The envelope of an event whose fields ExtractNewRecordState has put beside the row's."""
    operation = row.get("__op")
    if row.get("__deleted") in (True, "true"):
        operation = "d"
    if not isinstance(operation, str):
        raise _wrong(path, "an event has `op`, or `__op` beside its columns")
    columns = {name: value for name, value in row.items() if not name.startswith(_FLAT)}
    marks = {name.removeprefix(_FLAT): value for name, value in row.items() if name.startswith(_FLAT)}
    source = {name.removeprefix("source_"): value for name, value in marks.items() if name not in {"op", "deleted"}}
    images = {"before": columns} if operation == "d" else {"after": columns}
    return {"op": operation, "source": source, **images}


def _images(operation: Operation, envelope: Json, path: str) -> tuple[Json | None, Json | None]:
    before, after = envelope.get("before"), envelope.get("after")
    for name, image, needed in (
        ("before", before, operation is Operation.DELETE),
        ("after", after, operation is not Operation.DELETE),
    ):
        if not isinstance(image, dict) and (needed or image is not None):
            raise _wrong(path, f"`{name}` is an object")
    return (None if operation is Operation.INSERT else before), (None if operation is Operation.DELETE else after)


def _key(envelope: Json, source: Json, table: str, key: str | None, path: str) -> str:
    """The same for the same change however often it comes, and different for every other."""
    if key is not None:
        return key
    position = {name: source[name] for name in _POSITIONS if source.get(name) is not None}
    if not position.keys() - {"row", "ord"}:
        raise Invalid(
            "DEDUPE_KEY_MISSING",
            "The event has no position in a log (source.lsn or source.pos), so a repetition could not be told from "
            "another change. Give an Idempotency-Key.",
            [_problem(path, "no position in a log")],
        )
    origin = {name: source.get(name) for name in _ORIGINS}
    said = {name: envelope.get(name) for name in ("op", "before", "after")}
    return digest([origin, table, position, said])


def _moment(milliseconds: Any) -> str | None:
    if isinstance(milliseconds, int) and 0 <= milliseconds < 253_402_300_800_000:
        return written(datetime.fromtimestamp(milliseconds / 1000, UTC))
    return None


def _wrong(path: str, message: str) -> Invalid:
    return Invalid("CHANGE_INVALID", "An event is not in Debezium's form.", [_problem(path, message)])


def _problem(path: str, message: str) -> Json:
    return {"path": path, "message": message}
