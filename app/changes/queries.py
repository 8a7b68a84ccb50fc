"""Questions about watched tables: one function for each."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.event_tables import ChangeSource
from app.db.statuses import ChangeMethod, ChangeSourceStatus
from app.versions.queries import as_uuid


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
