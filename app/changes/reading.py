"""Reading a slot, and the outbox, into the inbox.

Events are committed with the position up to which they are complete; only then may the user's database forget. Whoever
dies in between finds the same changes again, and passes over what is before its position.

A transaction is never cut: it comes whole, however large. The server keeps it in a file, here no more than a batch of
it is in memory; its events are committed batch by batch and the position after the last one.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from asyncpg.exceptions import ObjectInUseError

from app.changes import outbox, replication
from app.changes.committing import Batch, batch_of
from app.changes.judging import watched
from app.changes.pgoutput import Message, decode
from app.changes.replication import DECODING_WITHIN
from app.changes.row_changes import Assembler, RowChange, lsn_number, lsn_text
from app.connections.column_values import TypeTable
from app.db.event_tables import ChangeSource
from app.db.session import Connection, Database

# Messages that one look at the log asks for; it always gets whole transactions, so there may be more.
MESSAGES = 5_000
# Bytes of others' log that may pass before the slot is moved on though nothing of ours was in it.
FOREIGN_LOG = 1024 * 1024
OUTBOX_ROWS = 500

_PEEK = """
    SELECT lsn::text AS lsn, data FROM pg_logical_slot_peek_binary_changes(
        $1::text::name, $2::text::pg_lsn, $3::int4, VARIADIC ARRAY['proto_version', '1', 'publication_names', $4::text])
"""
# Of the server's own types: PostgreSQL's have numbers below.
_TYPES = """
    SELECT oid::int8 AS oid, CASE WHEN typcategory = 'A' THEN typelem::int8 END AS item,
        CASE WHEN typtype = 'd' THEN typbasetype::int8 END AS base
    FROM pg_type WHERE oid >= 16384 AND (typtype = 'd' OR (typcategory = 'A' AND typlen = -1))
"""


async def read_slot(database: Database, remote: Connection, slot: str, sources: Sequence[ChangeSource]) -> bool:
    """Stores what the slot holds for these sources, which share it; whether there is more.

    Raises `replication.SlotLost`, `PgoutputError`, and what PostgreSQL raises.
    """
    standing = await replication.read_slot(remote, slot)
    if standing.written <= standing.confirmed:
        return False
    batch = batch_of(watched(source, lsn_number(source.checkpoint or "0/0")) for source in sources)
    try:
        count, complete_to = await _read(database, remote, slot, standing.written, sources[0].publication or "", batch)
    except ObjectInUseError:
        # Somebody else reads it, perhaps a process that has not noticed yet that it lost its lock.
        return False
    await batch.commit(database)
    # A look that got fewer messages than it asked for has seen all that was committed before the log's end.
    cut = count >= MESSAGES
    target = complete_to if cut else max(complete_to, standing.written)
    if count or target - standing.confirmed >= FOREIGN_LOG:
        await replication.advance(remote, slot, lsn_text(target))
    return cut


async def _read(
    database: Database, remote: Connection, slot: str, end: int, publication: str, batch: Batch
) -> tuple[int, int]:
    """Puts the changes through the batch; how many messages there were, and where the last transaction ended."""
    assembler = Assembler(await _types(remote))
    count = complete_to = 0
    async with aclosing(_messages(remote, slot, end, publication)) as messages:
        async for lsn, message, size in messages:
            count += 1
            for found in assembler.take([(lsn, message)]):
                if isinstance(found, RowChange):
                    batch.take(found, size)
                else:
                    complete_to = found.end_lsn
                    batch.complete(complete_to)
            if batch.full():
                await batch.commit(database)
    return count, complete_to


async def _messages(
    remote: Connection, slot: str, end: int, publication: str
) -> AsyncGenerator[tuple[int, Message, int], None]:
    async with remote.transaction():
        rows = remote.cursor(_PEEK, slot, lsn_text(end), MESSAGES, publication, prefetch=200, timeout=DECODING_WITHIN)
        async for row in rows:
            yield lsn_number(row["lsn"]), decode(row["data"]), len(row["data"])


async def _types(remote: Connection) -> TypeTable:
    found = await remote.fetch(_TYPES)
    items = {row["oid"]: row["item"] for row in found if row["item"] is not None}
    return TypeTable(items, {row["oid"]: row["base"] for row in found if row["base"] is not None})


async def read_outbox(database: Database, remote: Connection, source: ChangeSource) -> bool:
    """Stores what waits in the outbox for this source, and deletes it there; whether there may be more."""
    batch = batch_of([watched(source)])
    ids: list[int] = []
    async with remote.transaction():
        waiting = outbox.waiting(remote, source.table_schema, source.table_name, OUTBOX_ROWS)
        async with aclosing(waiting) as changes:
            async for row_id, change, size in changes:
                batch.take(change, size)
                ids.append(row_id)
                if batch.full():
                    await batch.commit(database)
        await batch.commit(database)
        if ids:
            await outbox.forget(remote, ids)
    return len(ids) == OUTBOX_ROWS
