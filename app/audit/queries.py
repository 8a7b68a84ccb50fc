"""Questions about the audit: one function for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.tables import AuditEvent


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What the audit is narrowed to."""

    actor: str | None = None
    action: str | None = None
    execution_id: UUID | None = None
    entity_kind: str | None = None
    entity_id: str | None = None
    result: str | None = None
    at_or_after: datetime | None = None
    before: datetime | None = None


async def list_audit_events(
    session: AsyncSession, wanted: AuditFilter, *, below: UUID | None, limit: int
) -> Sequence[AuditEvent]:
    """Events, the latest first, from below an id."""
    equal = (
        (col(AuditEvent.actor), wanted.actor),
        (col(AuditEvent.action), wanted.action),
        (col(AuditEvent.execution_id), wanted.execution_id),
        (col(AuditEvent.entity_kind), wanted.entity_kind),
        (col(AuditEvent.entity_id), wanted.entity_id),
        (col(AuditEvent.result), wanted.result),
    )
    statement = select(AuditEvent).where(*(column == value for column, value in equal if value is not None))
    if wanted.at_or_after is not None:
        statement = statement.where(col(AuditEvent.at) >= wanted.at_or_after)
    if wanted.before is not None:
        statement = statement.where(col(AuditEvent.at) < wanted.before)
    if below is not None:
        statement = statement.where(col(AuditEvent.id) < below)
    return (await session.execute(statement.order_by(col(AuditEvent.id).desc()).limit(limit))).scalars().all()
