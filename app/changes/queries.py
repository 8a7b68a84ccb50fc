"""Questions about watched tables: one function for each."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from asyncpg.exceptions import LockNotAvailableError
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.event_tables import ChangeSource
from app.db.session import Connection, Database
from app.db.statuses import ChangeMethod, ChangeSourceStatus
from app.errors import Unavailable
from app.versions.queries import as_uuid

# Milliseconds that what people do waits for the reader; shorter than the longest statement.
_PATIENCE = 10_000
_LOCK = "millrace.changes."


async def find_source(session: AsyncSession, reference: str) -> ChangeSource | None:
    """A source by its id or its trigger's key."""
    source_id = as_uuid(reference)
    named = col(ChangeSource.key) == reference
    wanted = named if source_id is None else or_(named, col(ChangeSource.id) == source_id)
    return (await session.execute(select(ChangeSource).where(wanted))).scalar_one_or_none()


async def find_source_of_table(session: AsyncSession, connection: str, schema: str, table: str) -> ChangeSource | None:
    """The source of a table."""
    statement = select(ChangeSource).where(
        col(ChangeSource.connection) == connection,
        col(ChangeSource.table_schema) == schema,
        col(ChangeSource.table_name) == table,
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def find_posted(session: AsyncSession, schema: str, table: str) -> ChangeSource | None:
    """The source that takes posted changes of a table; of several, the oldest."""
    statement = select(ChangeSource).where(
        col(ChangeSource.method) == ChangeMethod.POSTED,
        col(ChangeSource.table_schema) == schema,
        col(ChangeSource.table_name) == table,
    )
    return (await session.execute(statement.order_by(col(ChangeSource.id)).limit(1))).scalar_one_or_none()


async def list_sources(
    session: AsyncSession,
    *,
    connection: str | None = None,
    status: ChangeSourceStatus | None = None,
    before: UUID | None = None,
    limit: int | None = None,
) -> Sequence[ChangeSource]:
    """Sources, the newest first, from below `before`."""
    conditions: list[ColumnElement[bool]] = []
    if connection is not None:
        conditions.append(col(ChangeSource.connection) == connection)
    if status is not None:
        conditions.append(col(ChangeSource.status) == status)
    if before is not None:
        conditions.append(col(ChangeSource.id) < before)
    statement = select(ChangeSource).where(*conditions).order_by(col(ChangeSource.id).desc()).limit(limit)
    return (await session.execute(statement)).scalars().all()


@asynccontextmanager
async def holding(database: Database, connection: str) -> AsyncIterator[None]:
    """Keeps the reader, and everybody else, from what is watched on a connection, for the block.

    Raises `Unavailable` CONNECTION_BUSY after ten seconds.
    """
    async with database.driver() as driver, driver.transaction():
        try:
            await driver.execute(f"SET LOCAL lock_timeout = {_PATIENCE}")
            await driver.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", _LOCK + connection)
        except LockNotAvailableError as error:
            raise Unavailable("CONNECTION_BUSY", f"Changes of {connection} are being read; try again.") from error
        yield


async def take_hold(driver: Connection, connection: str) -> bool:
    """Whether nobody else had it; it is held until the transaction of `driver` ends."""
    statement = "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))"
    return bool(await driver.fetchval(statement, _LOCK + connection))
