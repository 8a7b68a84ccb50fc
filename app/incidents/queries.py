"""Questions about incidents: one function for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.tables import Incident, WorkflowExecution, WorkflowTemplate
from app.versions.queries import as_uuid


@dataclass(frozen=True, slots=True)
class IncidentFilter:
    """What incidents are narrowed to; `open` None means open and resolved ones, `template` is an id or a slug."""

    open: bool | None = None
    execution_id: UUID | None = None
    root_id: UUID | None = None
    template: str | None = None
    step_id: str | None = None
    code: str | None = None
    opened_after: datetime | None = None
    opened_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident, with the template of its execution."""

    incident: Incident
    template: str
    root_id: UUID


async def list_incidents(
    session: AsyncSession, wanted: IncidentFilter, *, below: UUID | None, limit: int
) -> Sequence[IncidentRow]:
    """Incidents, the latest first, from below an id."""
    template_id = None if wanted.template is None else as_uuid(wanted.template)
    equal: tuple[tuple[Any, Any], ...] = (
        (col(Incident.execution_id), wanted.execution_id),
        (col(WorkflowExecution.root_id), wanted.root_id),
        (col(WorkflowTemplate.id), template_id),
        (col(WorkflowTemplate.slug), wanted.template if template_id is None else None),
        (col(Incident.step_id), wanted.step_id),
        (col(Incident.code), wanted.code),
    )
    statement = (
        select(Incident, col(WorkflowTemplate.slug), col(WorkflowExecution.root_id))
        .join(WorkflowExecution, col(WorkflowExecution.id) == Incident.execution_id)
        .join(WorkflowTemplate, col(WorkflowTemplate.id) == WorkflowExecution.template_id)
        .where(*(column == value for column, value in equal if value is not None))
    )
    if wanted.open is not None:
        resolved = col(Incident.resolved_at)
        statement = statement.where(resolved.is_(None) if wanted.open else resolved.is_not(None))
    if wanted.opened_after is not None:
        statement = statement.where(col(Incident.opened_at) > wanted.opened_after)
    if wanted.opened_before is not None:
        statement = statement.where(col(Incident.opened_at) < wanted.opened_before)
    if below is not None:
        statement = statement.where(col(Incident.id) < below)
    statement = statement.order_by(col(Incident.id).desc()).limit(limit)
    return [IncidentRow(row[0], row[1], row[2]) for row in await session.execute(statement)]
