"""Questions about lineage: what an execution's runs came from."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import Record
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer
from sqlmodel import col

from app.db.session import Connection
from app.db.statuses import LineageStatus
from app.db.tables import ExecutionLineage
from app.executions.queries import LOCAL_ACTIONS, LONG_ACTIONS

TO_BEGIN = f"""
    SELECT lineage.id, lineage.previous_run_id, lineage.state::text AS state, lineage.closed_as, lineage.ended_at,
        lineage.status_reason,
        execution.id AS execution_id, execution.name, execution.root_id, execution.parent_id,
        execution.trigger::text AS trigger, execution.status AS record_status,
        template.id AS template_id, template.slug, template.name AS template_name,
        version.id AS version_id, version.version, version.definition::text AS definition,
        {LOCAL_ACTIONS} AS local_actions, {LONG_ACTIONS} AS long_actions, (
            SELECT coalesce(1000 * extract(epoch FROM max(recorded_at)), 0)::bigint FROM (
                SELECT recorded_at FROM human_task WHERE execution_id = execution.id
                UNION ALL SELECT recorded_at FROM signal_wait WHERE execution_id = execution.id
            ) AS recorded
        ) AS recorded_until
    FROM execution_lineage AS lineage
    JOIN workflow_execution AS execution ON execution.id = lineage.execution_id
    JOIN workflow_template AS template ON template.id = execution.template_id
    JOIN workflow_template_version AS version ON version.id = execution.version_id
    WHERE lineage.id = $1 AND lineage.status = 'PENDING'
    FOR UPDATE OF lineage, execution
"""


async def list_lineage(session: AsyncSession, execution_id: UUID) -> Sequence[ExecutionLineage]:
    """An execution's lineage, the earliest first, without the states."""
    state: Any = ExecutionLineage.state
    statement = (
        select(ExecutionLineage)
        .options(defer(state))
        .where(col(ExecutionLineage.execution_id) == execution_id)
        .order_by(col(ExecutionLineage.id))
    )
    return (await session.execute(statement)).scalars().all()


async def find_by_key(session: AsyncSession, execution_id: UUID, key: str) -> ExecutionLineage | None:
    """The turn that an idempotency key was used for."""
    statement = select(ExecutionLineage).where(
        col(ExecutionLineage.execution_id) == execution_id, col(ExecutionLineage.idempotency_key) == key
    )
    return (await session.execute(statement)).scalar_one_or_none()


@dataclass(slots=True)
class Pages:
    """How far one who comes again and again has come with the turns that are left: those that cannot be made yet must
    not keep the others from theirs.
    """

    after: UUID | None = None

    async def following(
        self, session: AsyncSession, kinds: Sequence[str], before: datetime, limit: int
    ) -> Sequence[UUID]:
        """The next turns that were decided before a time and perhaps not made; after the last it begins anew."""
        found = await _list_pending(session, kinds, before, self.after, limit)
        self.after = found[-1] if len(found) == limit else None
        return found


async def _list_pending(
    session: AsyncSession, kinds: Sequence[str], before: datetime, after: UUID | None, limit: int
) -> Sequence[UUID]:
    statement = (
        select(col(ExecutionLineage.id))
        .where(
            col(ExecutionLineage.status) == LineageStatus.PENDING,
            col(ExecutionLineage.kind).in_(kinds),
            col(ExecutionLineage.at) < before,
        )
        .order_by(col(ExecutionLineage.id))
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(col(ExecutionLineage.id) > after)
    return (await session.execute(statement)).scalars().all()


async def find_to_begin(connection: Connection, lineage_id: UUID) -> Record | None:
    """A turn that waits for its run, with all that the run needs, locked; None when it waits no more."""
    return await connection.fetchrow(TO_BEGIN, lineage_id)
