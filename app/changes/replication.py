"""Logical replication by SQL: publications, slots, and what a table must log of its old rows.

The publication is made before the slot, because a slot decodes with what was there when the change was made. One
publication and one slot serve all tables of a connection; a paused table gets a copy of the slot, so that the others
can go on.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from asyncpg.exceptions import (
    ConfigurationLimitExceededError,
    InsufficientPrivilegeError,
    ObjectInUseError,
    ObjectNotInPrerequisiteStateError,
    PostgresError,
    UndefinedObjectError,
)

from app.changes.catalogue import TableShape
from app.changes.row_changes import lsn_number
from app.changes.statements import LOCK_WITHIN, quoted
from app.db.session import Connection
from app.errors import AppError, Conflict

PREFIX: Final = "millrace_"
# Decoding may have to begin far back in the log; seconds.
DECODING_WITHIN: Final = 300.0

# Seconds. PostgreSQL waits for the end of every transaction that has changed something by then.
SLOT_WITHIN: Final = 25.0

_ADVICE: Final = "Or watch the table with the method OUTBOX (`--method outbox`), which needs no replication."
_SLOT: Final = """
    SELECT confirmed_flush_lsn::text AS confirmed, wal_status,
        pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::int8 AS lag,
        pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 AS retained,
        pg_current_wal_flush_lsn()::text AS written
    FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()
"""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a slot stands. `lag` is what has not been read, `retained` what the server keeps on disk for it; bytes.

    `written` is the end of the log, up to which everything that has committed can be read.
    """

    confirmed: int
    written: int
    lag: int
    retained: int


class SlotLost(AppError):
    """409: the slot is gone, or the server has thrown away what it needs; changes since are not to be had."""

    def __init__(self, slot: str) -> None:
        super().__init__(
            "SLOT_LOST",
            409,
            f"The replication slot {slot} is gone, and with it the changes that were not read yet. "
            "Resume the source to begin anew from now; what was missed can be backfilled.",
        )


def new_stream() -> str:
    """The name of a new publication and its slot."""
    return f"{PREFIX}{uuid4().hex[:12]}"


def own_slot(publication: str, source_id: UUID) -> str:
    """The name of a slot that a source has to itself."""
    return f"{publication}_{source_id.hex[-12:]}"


async def check_server(connection: Connection) -> None:
    """Raises REPLICATION_NOT_CONFIGURED where the server's log holds too little."""
    level = await connection.fetchval("SHOW wal_level")
    if level != "logical":
        raise Conflict(
            "REPLICATION_NOT_CONFIGURED",
            f"The server has wal_level={level}. Logical replication needs wal_level=logical in postgresql.conf and a "
            f"restart of the server. {_ADVICE}",
        )


async def check_publishable(table: TableShape, *, whole: bool) -> None:
    """Raises REPLICATION_NOT_PERMITTED, TABLE_NOT_WATCHABLE, and REPLICA_IDENTITY_MISSING for a table whose rows nobody
    could change any more once it were published.
    """
    if not table.logged:
        raise Conflict("TABLE_NOT_WATCHABLE", f"{table.name} is UNLOGGED, so replication does not see it. {_ADVICE}")
    if not table.owned:
        raise Conflict(
            "REPLICATION_NOT_PERMITTED",
            f"Only the owner of {table.name} can publish it, and the connection's user is not. {_ADVICE}",
        )
    if not whole and not table.identified():
        raise Conflict(
            "REPLICA_IDENTITY_MISSING",
            f"{table.name} has no primary key, so PostgreSQL would refuse every UPDATE and DELETE of it once it is "
            "published. Watch it with the whole row before, or give it a key.",
        )


async def keep_whole_rows(connection: Connection, table: TableShape) -> str | None:
    """Lets the log hold old rows whole; gives what the table's replica identity was, None where nothing changed."""
    if table.identity == "f":
        return None
    await _alter(connection, "REPLICA IDENTITY FULL", await _tree(connection, table))
    if table.partitioned:
        return None
    index = quoted(table.identity_index) if table.identity_index else ""
    return {"d": "DEFAULT", "n": "NOTHING", "i": f"USING INDEX {index}"}[table.identity]


async def restore_identity(connection: Connection, schema: str, name: str, identity: str) -> None:
    """What the log holds of old rows becomes what it was; a table or index that has gone meanwhile is let be."""
    with suppress(UndefinedObjectError):
        if await connection.fetchval("SELECT to_regclass($1)::text", quoted(schema, name)):
            await _alter(connection, f"REPLICA IDENTITY {identity}", [quoted(schema, name)])


async def _alter(connection: Connection, change: str, tables: list[str]) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_WITHIN}")
        for table in tables:
            await connection.execute(f"ALTER TABLE {table} {change}")


async def _tree(connection: Connection, table: TableShape) -> list[str]:
    name = quoted(table.schema, table.name)
    if not table.partitioned:
        return [name]
    found = await connection.fetch(
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name FROM pg_partition_tree($1::regclass) t "
        "JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace",
        name,
    )
    return [row["name"] for row in found]


async def publish(connection: Connection, publication: str, schema: str, name: str) -> None:
    """Puts the table into the publication, which is made if it is not there. Raises REPLICATION_NOT_PERMITTED."""
    table = quoted(schema, name)
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {LOCK_WITHIN}")
            if not await published(connection, publication):
                options = "publish = 'insert, update, delete', publish_via_partition_root = true"
                await connection.execute(f"CREATE PUBLICATION {quoted(publication)} FOR TABLE {table} WITH ({options})")
            elif (schema, name) not in await published_tables(connection, publication):
                await connection.execute(f"ALTER PUBLICATION {quoted(publication)} ADD TABLE {table}")
    except InsufficientPrivilegeError as error:
        raise Conflict(
            "REPLICATION_NOT_PERMITTED",
            f"The connection's user may not publish {name}: {error}. It needs CREATE on the database. {_ADVICE}",
        ) from error


async def published(connection: Connection, publication: str) -> bool:
    """Whether there is such a publication."""
    return bool(await connection.fetchval("SELECT true FROM pg_publication WHERE pubname = $1", publication))


async def published_tables(connection: Connection, publication: str) -> set[tuple[str, str]]:
    """The schemas and names of the tables in the publication; none where it is not there."""
    found = await connection.fetch(
        "SELECT n.nspname, c.relname FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid "
        "JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1",
        publication,
    )
    return {(row["nspname"], row["relname"]) for row in found}


async def withdraw(connection: Connection, publication: str, schema: str, name: str) -> None:
    """Takes the table out of the publication, if it is in it."""
    if (schema, name) in await published_tables(connection, publication):
        await connection.execute(f"ALTER PUBLICATION {quoted(publication)} DROP TABLE {quoted(schema, name)}")


async def make_slot(connection: Connection, slot: str, within: float = SLOT_WITHIN) -> str:
    """Makes the slot; the position from which on it has everything.

    Raises REPLICATION_NOT_PERMITTED, REPLICATION_SLOTS_FULL, TRANSACTIONS_OPEN after `within` seconds.
    """
    statement = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')"
    try:
        async with asyncio.timeout(within):
            return await _made(connection, statement, slot)
    except TimeoutError as error:
        raise Conflict(
            "TRANSACTIONS_OPEN",
            "A new replication slot waits for every transaction that has changed something on the server, in any of "
            f"its databases, and after {within:.0f} s one was still open. Try again when it has ended.",
        ) from error


async def copy_slot(connection: Connection, slot: str, copy: str) -> None:
    """A second slot that stands where the first does. Raises like `make_slot`; one that is there already is let go."""
    await drop_slot(connection, copy)
    await _made(connection, "SELECT lsn::text FROM pg_copy_logical_replication_slot($1, $2)", slot, copy)


async def _made(connection: Connection, statement: str, *names: str) -> str:
    try:
        return str(await connection.fetchval(statement, *names))
    except InsufficientPrivilegeError as error:
        raise Conflict(
            "REPLICATION_NOT_PERMITTED",
            "The connection's user may not make replication slots: it needs the attribute REPLICATION (on managed "
            f"servers, the role that stands for it). {_ADVICE}",
        ) from error
    except ConfigurationLimitExceededError as error:
        raise Conflict(
            "REPLICATION_SLOTS_FULL",
            f"All replication slots of the server are in use; it needs a higher max_replication_slots. {_ADVICE}",
        ) from error


async def read_slot(connection: Connection, slot: str) -> Slot:
    """Where the slot stands. Raises `SlotLost`."""
    found = await connection.fetchrow(_SLOT, slot)
    if found is None or found["wal_status"] == "lost" or found["confirmed"] is None:
        raise SlotLost(slot)
    return Slot(
        lsn_number(found["confirmed"]), lsn_number(found["written"]), found["lag"], found["retained"] or found["lag"]
    )


async def drop_slot(connection: Connection, slot: str) -> None:
    """Lets the slot go, if it is there."""
    with suppress(UndefinedObjectError):
        await connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE slot_name = $1 AND database = current_database()",
            slot,
        )


async def drop_stream(connection: Connection, publication: str) -> None:
    """Lets the publication and every slot of it go."""
    for slot in await slots_of(connection, publication):
        await drop_slot(connection, slot)
    await connection.execute(f"DROP PUBLICATION IF EXISTS {quoted(publication)}")


async def slots_of(connection: Connection, publication: str) -> list[str]:
    """The slots that were made for a publication."""
    found = await connection.fetch(
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() "
        "AND (slot_name = $1 OR starts_with(slot_name, $1 || '_'))",
        publication,
    )
    return [row["slot_name"] for row in found]


async def advance(connection: Connection, slot: str, lsn: str) -> bool:
    """Lets the server forget what lies before; false where somebody else is using the slot, or has moved it further."""
    try:
        await connection.fetchval(
            "SELECT end_lsn FROM pg_replication_slot_advance($1, $2::text::pg_lsn)", slot, lsn, timeout=DECODING_WITHIN
        )
    except ObjectInUseError:
        return False
    except ObjectNotInPrerequisiteStateError:
        # Somebody who read it meanwhile has moved it further; a slot does not go back.
        if (await read_slot(connection, slot)).confirmed < lsn_number(lsn):
            raise
        return False
    return True


def is_lost(error: PostgresError) -> bool:
    """Whether an error of decoding says that the slot can never be read again, or that its publication is gone."""
    return error.sqlstate in {"55000", "42704"}
