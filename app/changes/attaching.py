"""What watching a table needs in the user's database: made whole or not at all, and taken away again."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from asyncpg.exceptions import InsufficientPrivilegeError

from app.changes import outbox, replication
from app.changes.catalogue import TableShape
from app.db.event_tables import ChangeSource
from app.db.session import Connection
from app.db.statuses import BeforeImage, ChangeMethod, ChangeSourceStatus
from app.errors import Conflict

# Columns of a source's row.
Columns = dict[str, Any]


async def choose_stream(remote: Connection, source: ChangeSource, others: Sequence[ChangeSource]) -> Columns:
    """The publication and slot that the source is to have: its own if they are sound, those of the connection's other
    sources if there are, or new ones. `others` are the other sources of the connection.

    What the source had and nobody needs is taken away.
    """
    if source.method != ChangeMethod.REPLICATION:
        return {}
    await replication.check_server(remote)
    if source.publication and source.slot:
        if await _sound(remote, source.publication, source.slot):
            return {"publication": source.publication, "slot": source.slot}
        if all(other.publication != source.publication for other in others):
            await replication.drop_stream(remote, source.publication)
    for publication in {other.publication for other in others if other.status != ChangeSourceStatus.FAILED}:
        slot = await _shared_slot(remote, publication, source, others) if publication else None
        if slot is not None:
            return {"publication": publication, "slot": slot}
    name = replication.new_stream()
    return {"publication": name, "slot": name}


async def _shared_slot(
    remote: Connection, publication: str, source: ChangeSource, others: Sequence[ChangeSource]
) -> str | None:
    """The slot of a publication that the source may read; None where the publication or the slot is lost."""
    if not await replication.published(remote, publication):
        return None
    if any(other.slot == publication and other.status == ChangeSourceStatus.PAUSED for other in others):
        # To read on would lose what waits there for the paused one.
        return replication.own_slot(publication, source.id)
    there = publication in await replication.slots_of(remote, publication)
    return publication if not there or await _sound(remote, publication, publication) else None


async def attach(remote: Connection, source: ChangeSource, table: TableShape, *, whole: bool) -> Columns:
    """Makes what the source needs, with its row's publication and slot; the columns of the row that follow.

    Raises OUTBOX_NOT_PERMITTED, BEFORE_NOT_KNOWN and what `replication` raises; then nothing stays behind.
    """
    if source.method == ChangeMethod.OUTBOX:
        await _attach_outbox(remote, table)
        return {"before_image": BeforeImage.FULL}
    await replication.check_publishable(table, whole=whole)
    known = BeforeImage.FULL if whole or table.identity == "f" else BeforeImage.KEY
    if known is BeforeImage.KEY and (source.monitored_columns or source.status_column):
        raise Conflict(
            "BEFORE_NOT_KNOWN", "Which columns an UPDATE changed is only known where the whole row before is logged."
        )
    columns: Columns = {"before_image": known}
    publication, slot = source.publication or "", source.slot or ""
    async with AsyncExitStack() as undone:
        if whole and table.identity != "f":
            before = await replication.keep_whole_rows(remote, table)
            if before is not None:
                columns["identity_before"] = before
                undone.push_async_callback(replication.restore_identity, remote, table.schema, table.name, before)
        if not await replication.published(remote, publication):
            undone.push_async_callback(replication.drop_stream, remote, publication)
        else:
            undone.push_async_callback(replication.withdraw, remote, publication, table.schema, table.name)
        await replication.publish(remote, publication, table.schema, table.name)
        if slot not in await replication.slots_of(remote, publication):
            columns["checkpoint"] = await replication.make_slot(remote, slot)
        undone.pop_all()
    return columns


async def detach(remote: Connection, source: ChangeSource, others: Sequence[ChangeSource]) -> None:
    """Takes away what was made for the source and none of the others needs. Raises OUTBOX_NOT_PERMITTED."""
    schema, name = source.table_schema, source.table_name
    if source.method == ChangeMethod.OUTBOX:
        await _detach_outbox(remote, schema, name)
        return
    if source.publication is not None:
        if any(other.publication == source.publication for other in others):
            await replication.withdraw(remote, source.publication, schema, name)
            if source.slot and all(other.slot != source.slot for other in others):
                # A slot that nobody reads would fill the server's disk.
                await replication.drop_slot(remote, source.slot)
        else:
            await replication.drop_stream(remote, source.publication)
    if source.identity_before is not None:
        await replication.restore_identity(remote, schema, name, source.identity_before)


async def _sound(remote: Connection, publication: str, slot: str) -> bool:
    try:
        await replication.read_slot(remote, slot)
    except replication.SlotLost:
        return False
    return await replication.published(remote, publication)


async def _attach_outbox(remote: Connection, table: TableShape) -> None:
    try:
        await outbox.install(remote, table)
    except InsufficientPrivilegeError as error:
        raise Conflict(
            "OUTBOX_NOT_PERMITTED",
            f"The connection's user may not make the outbox: {error}. Let somebody who may run what "
            "`millrace changes watch TABLE --method outbox --print-sql` prints, and watch again.",
        ) from error


async def _detach_outbox(remote: Connection, schema: str, name: str) -> None:
    try:
        await outbox.remove(remote, schema, name)
    except InsufficientPrivilegeError as error:
        # Left there, it would go on filling an outbox that nobody reads.
        raise Conflict(
            "OUTBOX_NOT_PERMITTED",
            f"The connection's user may not take the table out of the outbox: {error}. Let somebody who may run "
            f"`{outbox.removal_sql(schema, name)}`, and unwatch it again.",
        ) from error
