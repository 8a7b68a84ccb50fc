"""Messages as PostgreSQL's pgoutput writes them: what the decoder reads must be what this wrote."""

import struct
from datetime import UTC, datetime, timedelta

from app.changes.pgoutput import (
    Begin,
    Cells,
    Column,
    Commit,
    Delete,
    Insert,
    Message,
    Origin,
    Relation,
    Truncate,
    Type,
    Unchanged,
    Update,
)

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def encode(message: Message) -> bytes:
    match message:
        case Begin(commit_lsn, at, xid):
            return b"B" + struct.pack("!QqI", commit_lsn, moment(at), xid)
        case Commit(commit_lsn, end_lsn, at):
            return b"C" + struct.pack("!BQQq", 0, commit_lsn, end_lsn, moment(at))
        case Origin(lsn, name):
            return b"O" + struct.pack("!Q", lsn) + text(name)
        case Relation(oid, schema, name, identity, columns):
            head = b"R" + struct.pack("!I", oid) + text(schema) + text(name) + identity.encode()
            return head + struct.pack("!H", len(columns)) + b"".join(map(column, columns))
        case Type(oid, schema, name):
            return b"Y" + struct.pack("!I", oid) + text(schema) + text(name)
        case Insert(relation, new):
            return b"I" + struct.pack("!I", relation) + b"N" + cells(new)
        case Update(relation, old, whole, new):
            before = b"" if old is None else (b"O" if whole else b"K") + cells(old)
            return b"U" + struct.pack("!I", relation) + before + b"N" + cells(new)
        case Delete(relation, old, whole):
            return b"D" + struct.pack("!I", relation) + (b"O" if whole else b"K") + cells(old)
        case Truncate(relations, options):
            return b"T" + struct.pack(f"!IB{len(relations)}I", len(relations), options, *relations)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def moment(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def column(one: Column) -> bytes:
    return struct.pack("!B", one.key) + text(one.name) + struct.pack("!Ii", one.type_oid, one.modifier)


def cells(row: Cells) -> bytes:
    encoded = struct.pack("!H", len(row))
    for cell in row:
        if cell is None:
            encoded += b"n"
        elif isinstance(cell, Unchanged):
            encoded += b"u"
        else:
            content = cell.encode()
            encoded += b"t" + struct.pack("!I", len(content)) + content
    return encoded
