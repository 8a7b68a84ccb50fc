"""What can be done with watched tables.

The row is written first, as not finished, and completed when the user's database has what it needs: a slot that
nobody knows of would fill that database's disk.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col

from app.audit.changes import Facts, record_change
from app.audit.repeating import Asked, find_made, record_made
from app.changes import outbox, replication
from app.changes.attaching import attach, choose_stream, detach
from app.changes.catalogue import TableShape, read_table
from app.changes.locking import holding
from app.changes.queries import find_source, find_source_of_table, list_sources
from app.changes.registering import definition, free_key
from app.changes.schemas import WatchRequest
from app.connections.opening import Connections
from app.db.event_tables import ChangeSource, Subscription, TriggerDefinition
from app.db.session import Connection, Database
from app.db.statuses import BeforeImage, ChangeMethod, ChangeSourceStatus
from app.errors import AppError, Conflict, Invalid, NotFound
from app.findings import filter_invalid
from engine.filters.faults import FilterError
from engine.filters.reading import parse

_HAS_INBOX = (
    "SELECT to_regclass('public.trigger_event') IS NOT NULL AND to_regclass('public.alembic_version') IS NOT NULL"
)
UNFINISHED = "WATCH_UNFINISHED"
_FACTS = {
    "key", "connection", "table_schema", "table_name", "method", "operations", "monitored_columns", "status_column",
    "filter", "entity_type", "entity_column", "before_image", "status",
}  # fmt: skip


async def get_source(session: AsyncSession, reference: str) -> ChangeSource:
    """A source by its id or its trigger's key. Raises CHANGE_SOURCE_NOT_FOUND."""
    source = await find_source(session, reference)
    if source is None:
        raise NotFound("change source", reference)
    return source


async def watch(
    database: Database, connections: Connections, request: WatchRequest, actor: str | None, key: str | None = None
) -> ChangeSource:
    """Makes the table's changes events from now on, and gives the source; or the one that the same request with the
    same key has made.

    Raises IDEMPOTENCY_CONFLICT, CHANGE_SOURCE_EXISTS, CONNECTION_…, TABLE_…, COLUMN_UNKNOWN, FILTER_INVALID,
    TRIGGER_KEY_TAKEN, and with REPLICATION what `replication` raises: then nothing stays behind.
    """
    _check(request)
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True)
    asked = Asked("WATCH", "CHANGE_SOURCE", actor, key, said)
    async with holding(database, request.connection):
        async with database.transaction() as session:
            made = await find_made(session, asked)
            if made is not None:
                return await get_source(session, made)
        if request.method is ChangeMethod.POSTED:
            source = await _register(database, request, None)
        else:
            async with connections.opened(request.connection) as remote:
                table = await read_table(remote, request.schema_name, request.table)
                await _refuse_millraces(remote, table)
                _check_columns(request, table)
                source = await _register(database, request, table)
                try:
                    source = await _attach(database, remote, source, table, request.whole_before)
                except AppError:
                    async with database.transaction() as session:
                        await _forget(session, source)
                    raise
        async with database.transaction() as session:
            await record_made(session, asked, source.id, _facts(source))
        return source


async def unwatch(
    database: Database, connections: Connections, reference: str, actor: str | None, *, abandon: bool = False
) -> None:
    """Ends the watching, takes away what was made for it in the user's database, and the registry's entry with it.

    With `abandon` the user's database is not asked: what is in it stays, and its slot must be dropped by hand. Raises
    CHANGE_SOURCE_NOT_FOUND, TRIGGER_IN_USE while templates subscribe to it, CONNECTION_….
    """
    async with database.transaction() as session:
        source = await get_source(session, reference)
    async with holding(database, source.connection):
        async with database.transaction() as session:
            source = await get_source(session, reference)
            await _refuse_subscribed(session, source)
            others = await _others(session, source)
        if source.method != ChangeMethod.POSTED and not abandon:
            async with connections.opened(source.connection) as remote:
                await detach(remote, source, others)
        async with database.transaction() as session:
            await _forget(session, source)
            await record_change(session, "UNWATCH", ("CHANGE_SOURCE", source.id), actor, _facts(source), None)


async def pause(database: Database, connections: Connections, reference: str, actor: str | None) -> ChangeSource:
    """Lets the changes wait where they are, until the source is resumed; the server keeps its log for so long.

    Raises CHANGE_SOURCE_NOT_FOUND, CHANGE_SOURCE_NOT_ACTIVE, CONNECTION_…, REPLICATION_SLOTS_FULL.
    """
    async with database.transaction() as session:
        source = await get_source(session, reference)
    async with holding(database, source.connection):
        async with database.transaction() as session:
            source = await get_source(session, reference)
            others = await _others(session, source)
        if source.status == ChangeSourceStatus.PAUSED:
            return source
        if source.status != ChangeSourceStatus.ACTIVE:
            raise Conflict("CHANGE_SOURCE_NOT_ACTIVE", f"{source.key} is {source.status}, so it cannot be paused.")
        slot = source.slot
        if slot is not None and source.publication and any(other.slot == slot for other in others):
            # The others go on reading: the changes of this one wait in a slot of its own.
            copy = replication.own_slot(source.publication, source.id)
            async with connections.opened(source.connection) as remote:
                await replication.copy_slot(remote, slot, copy)
            await _change(database, source.id, slot=copy)
        return await _turn(database, source, "PAUSE", ChangeSourceStatus.PAUSED, actor)


async def resume(database: Database, connections: Connections, reference: str, actor: str | None) -> ChangeSource:
    """Goes on where the source was paused; or makes anew what a FAILED one has lost, and goes on from now.

    Raises CHANGE_SOURCE_NOT_FOUND and what `watch` raises.
    """
    async with database.transaction() as session:
        source = await get_source(session, reference)
    async with holding(database, source.connection):
        async with database.transaction() as session:
            source = await get_source(session, reference)
        if source.status == ChangeSourceStatus.ACTIVE:
            return source
        if source.status == ChangeSourceStatus.FAILED and source.method != ChangeMethod.POSTED:
            async with connections.opened(source.connection) as remote:
                table = await read_table(remote, source.table_schema, source.table_name)
                whole = source.before_image == BeforeImage.FULL
                await _attach(database, remote, source, table, whole)
        return await _turn(database, source, "RESUME", ChangeSourceStatus.ACTIVE, actor)


def _check(request: WatchRequest) -> None:
    try:
        parse(request.filter, "filter")
    except FilterError as error:
        raise filter_invalid(error, "body.") from error
    if (request.entity_type is None) != (request.entity_column is None):
        raise Invalid("ENTITY_INCOMPLETE", "An entity is told by entityType and entityColumn together.")


async def _refuse_millraces(remote: Connection, table: TableShape) -> None:
    """Of Millrace's own tables each event would make another, under whatever name the database is configured."""
    if table.schema != "public":
        return
    inbox = table.name in SQLModel.metadata.tables and await remote.fetchval(_HAS_INBOX)
    if inbox or table.name == outbox.TABLE:
        raise Invalid("TABLE_NOT_WATCHABLE", f"{table.name} is a table of Millrace: each event would be another.")


def _check_columns(request: WatchRequest, table: TableShape) -> None:
    known = {column.name for column in table.columns}
    asked = [(f"monitoredColumns[{at}]", name) for at, name in enumerate(request.monitored_columns)]
    asked += [("statusColumn", request.status_column or ""), ("entityColumn", request.entity_column or "")]
    problems = [
        {"path": f"body.{path}", "message": f"{table.name} has no column {name}"}
        for path, name in asked
        if name and name not in known
    ]
    if problems:
        raise Invalid("COLUMN_UNKNOWN", f"{table.name} has no such column.", problems)


async def _register(database: Database, request: WatchRequest, table: TableShape | None) -> ChangeSource:
    """Writes the row, not finished, and the registry's entry."""
    columns = () if table is None else table.columns
    where = (request.connection, request.schema_name, request.table)
    async with database.transaction() as session:
        if await find_source_of_table(session, *where) is not None:
            raise Conflict("CHANGE_SOURCE_EXISTS", f"{request.table} is watched already; unwatch it first.")
        key = await free_key(session, *where)
        entry = definition(key, *where, columns, whole_before=request.whole_before)
        session.add(entry)
        await session.flush()
        source = ChangeSource(
            key=key,
            trigger_id=entry.id,
            connection=request.connection,
            table_schema=request.schema_name,
            table_name=request.table,
            method=request.method,
            operations=[str(one) for one in dict.fromkeys(request.operations)],
            monitored_columns=request.monitored_columns,
            status_column=request.status_column,
            filter=request.filter or None,
            entity_type=request.entity_type,
            entity_column=request.entity_column,
            key_columns=[] if table is None else table.key_columns(),
            before_image=BeforeImage.FULL if request.whole_before else BeforeImage.KEY,
            status=ChangeSourceStatus.ACTIVE if table is None else ChangeSourceStatus.FAILED,
            code=None if table is None else UNFINISHED,
            message=None if table is None else "It was not made ready to the end. Resume or unwatch it.",
        )
        session.add(source)
        await session.flush()
        await session.refresh(source)
    return source


async def _attach(
    database: Database, remote: Connection, source: ChangeSource, table: TableShape, whole: bool
) -> ChangeSource:
    """Makes what the source needs in the user's database, and notes its names before: none may be forgotten there."""
    async with database.transaction() as session:
        others = await _others(session, source)
    source = await _change(database, source.id, **await choose_stream(remote, source, others))
    columns = await attach(remote, source, table, whole=whole)
    return await _change(database, source.id, **columns, status=ChangeSourceStatus.ACTIVE, code=None, message=None)


async def _others(session: AsyncSession, source: ChangeSource) -> list[ChangeSource]:
    """The other sources of the connection."""
    found = await list_sources(session, connection=source.connection)
    return [other for other in found if other.id != source.id]


async def _change(database: Database, source_id: UUID, **columns: Any) -> ChangeSource:
    async with database.transaction() as session:
        source = await session.get_one(ChangeSource, source_id)
        for name, value in columns.items():
            setattr(source, name, value)
        await session.flush()
        await session.refresh(source)
    return source


async def _turn(
    database: Database, source: ChangeSource, action: str, status: ChangeSourceStatus, actor: str | None
) -> ChangeSource:
    """Writes down what somebody turned the source into."""
    async with database.transaction() as session:
        before = {"status": source.status}
        found = await session.get_one(ChangeSource, source.id)
        found.status, found.code, found.message = status, None, None
        await session.flush()
        await session.refresh(found)
        await record_change(session, action, ("CHANGE_SOURCE", source.id), actor, before, {"status": status})
    return found


async def _forget(session: AsyncSession, source: ChangeSource) -> None:
    await session.execute(delete(ChangeSource).where(col(ChangeSource.id) == source.id))
    await session.execute(delete(TriggerDefinition).where(col(TriggerDefinition.id) == source.trigger_id))


async def _refuse_subscribed(session: AsyncSession, source: ChangeSource) -> None:
    subscribed = await session.execute(
        select(func.count()).select_from(Subscription).where(col(Subscription.trigger_id) == source.trigger_id)
    )
    if count := subscribed.scalar_one():
        raise Conflict("TRIGGER_IN_USE", f"{count} subscription(s) listen to {source.key}; delete them first.")


def _facts(source: ChangeSource) -> Facts:
    """What the audit says of a source."""
    return source.model_dump(mode="json", include=_FACTS)
