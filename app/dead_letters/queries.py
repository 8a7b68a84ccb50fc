"""Questions about dead letters: one function for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from app.db.tables import DeadLetter, WorkflowExecution, WorkflowTemplate, WorkflowTemplateVersion
from app.versions.queries import as_uuid


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A dead letter with the names of what failed; the state stays behind."""

    id: UUID
    execution_id: UUID
    name: str
    template: str
    version: str
    step_id: str | None
    code: str
    message: str
    attempts: int
    failed_execution_id: UUID | None
    created_at: datetime
    retried_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """What dead letters are narrowed to; `template` is an id or a slug, `retried` None means either."""

    template: str | None = None
    code: str | None = None
    retried: bool | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


async def find_dead_letter(session: AsyncSession, execution_id: UUID) -> DeadLetter | None:
    """The dead letter of an execution, with its state."""
    statement = select(DeadLetter).where(col(DeadLetter.execution_id) == execution_id)
    return (await session.execute(statement)).scalar_one_or_none()


async def find_dead_letter_row(session: AsyncSession, execution_id: UUID) -> DeadLetterRow | None:
    """The dead letter of an execution, without its state."""
    statement = _rows().where(col(DeadLetter.execution_id) == execution_id)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else DeadLetterRow(*row)


async def list_dead_letters(
    session: AsyncSession, wanted: DeadLetterFilter, *, before: tuple[datetime, UUID] | None, limit: int
) -> Sequence[DeadLetterRow]:
    """Dead letters, the newest first, from below `before` (time of creation and id)."""
    place = tuple_(col(DeadLetter.created_at), col(DeadLetter.id))
    statement = _rows().where(*_conditions(wanted))
    if before is not None:
        statement = statement.where(place < before)
    statement = statement.order_by(col(DeadLetter.created_at).desc(), col(DeadLetter.id).desc()).limit(limit)
    return [DeadLetterRow(*row) for row in await session.execute(statement)]


async def count_dead_letters(session: AsyncSession, before: datetime, ids: Sequence[UUID] | None) -> int:
    """How many a purge would delete."""
    counted = await session.execute(select(func.count()).select_from(DeadLetter).where(*_purged(before, ids)))
    return counted.scalar_one()


async def delete_dead_letters(session: AsyncSession, before: datetime, ids: Sequence[UUID] | None) -> int:
    """Deletes those created before a time, of these executions if any are named; how many."""
    deleted = await session.execute(delete(DeadLetter).where(*_purged(before, ids)).returning(col(DeadLetter.id)))
    return len(deleted.all())


def _purged(before: datetime, ids: Sequence[UUID] | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [col(DeadLetter.created_at) < before]
    if ids is not None:
        conditions.append(col(DeadLetter.execution_id).in_(ids))
    return conditions


def _conditions(wanted: DeadLetterFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.template is not None:
        template_id = as_uuid(wanted.template)
        named = col(WorkflowTemplate.slug) == wanted.template
        conditions.append(named if template_id is None else col(WorkflowTemplate.id) == template_id)
    if wanted.code is not None:
        conditions.append(col(DeadLetter.code) == wanted.code)
    if wanted.retried is not None:
        retried = col(DeadLetter.retried_at)
        conditions.append(retried.is_not(None) if wanted.retried else retried.is_(None))
    if wanted.created_after is not None:
        conditions.append(col(DeadLetter.created_at) > wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(col(DeadLetter.created_at) < wanted.created_before)
    return conditions


def _rows() -> Select[*tuple[Any, ...]]:
    return (
        select(
            col(DeadLetter.id),
            col(DeadLetter.execution_id),
            col(WorkflowExecution.name),
            col(WorkflowTemplate.slug),
            col(WorkflowTemplateVersion.version),
            col(DeadLetter.step_id),
            col(DeadLetter.code),
            col(DeadLetter.message),
            col(DeadLetter.attempts),
            col(DeadLetter.failed_execution_id),
            col(DeadLetter.created_at),
            col(DeadLetter.retried_at),
        )
        .select_from(DeadLetter)
        .join(WorkflowExecution, col(WorkflowExecution.id) == DeadLetter.execution_id)
        .join(WorkflowTemplate, col(WorkflowTemplate.id) == WorkflowExecution.template_id)
        .join(WorkflowTemplateVersion, col(WorkflowTemplateVersion.id) == WorkflowExecution.version_id)
    )
