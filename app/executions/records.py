"""The rows that a run writes about its steps: human tasks and incidents.

Everything may come twice and late: an activity that is repeated, a worker that died before it could say so. So a
record counts only when it is newer, by the run's own time, than what the row says already.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.contracts import IncidentRecord, RecordSteps, TaskRecord
from app.db.tables import new_id
from app.untrusted import made_storable

# A closing counts also at the very moment of the opening; an opening only later, or a repeated one would open again
# what has been closed since. What people wrote (claim, draft) goes when a task opens anew.
OPEN_TASKS = text("""
    INSERT INTO human_task AS task (
        id, execution_id, key, step_id, visit, item, name, type, status, assignee, candidate_groups, due_at, form,
        opened_at, recorded_at
    )
    SELECT id, CAST(:execution_id AS uuid), key, step_id, visit, item, name, type, 'OPEN', assignee,
        coalesce(candidate_groups, '{}'), due_at, form, at, at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS rows(
        id uuid, key text, step_id text, visit int, item int, name text, type text, assignee text,
        candidate_groups text[], due_at timestamptz, form jsonb, at timestamptz
    )
    ON CONFLICT (execution_id, key) DO UPDATE SET
        status = CASE WHEN task.closed_at IS NULL THEN task.status ELSE 'OPEN' END,
        opened_at = CASE WHEN task.closed_at IS NULL THEN task.opened_at ELSE excluded.opened_at END,
        claimed_by = CASE WHEN task.closed_at IS NULL THEN task.claimed_by END,
        draft = CASE WHEN task.closed_at IS NULL THEN task.draft END,
        outcome = NULL,
        closed_at = NULL,
        recorded_at = excluded.recorded_at,
        name = coalesce(excluded.name, task.name),
        type = coalesce(excluded.type, task.type),
        assignee = coalesce(excluded.assignee, task.assignee),
        candidate_groups = CASE WHEN excluded.candidate_groups = '{}' THEN task.candidate_groups
            ELSE excluded.candidate_groups END,
        due_at = coalesce(excluded.due_at, task.due_at),
        form = coalesce(excluded.form, task.form),
        updated_at = now()
    WHERE excluded.recorded_at > task.recorded_at
""")
CLOSE_TASKS = text("""
    INSERT INTO human_task AS task (
        id, execution_id, key, step_id, visit, item, name, type, status, outcome, opened_at, closed_at, recorded_at
    )
    SELECT id, CAST(:execution_id AS uuid), key, step_id, visit, item, name, type, status, outcome, at, at, at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS rows(
        id uuid, key text, step_id text, visit int, item int, name text, type text, status text, outcome jsonb,
        at timestamptz
    )
    ON CONFLICT (execution_id, key) DO UPDATE SET
        status = excluded.status,
        outcome = coalesce(excluded.outcome, task.outcome),
        closed_at = excluded.closed_at,
        recorded_at = excluded.recorded_at,
        updated_at = now()
    WHERE excluded.recorded_at > task.recorded_at
        OR (excluded.recorded_at = task.recorded_at AND task.closed_at IS NULL)
""")
# One row for each time that a step was parked; a repeated record finds its row.
OPEN_INCIDENTS = text("""
    INSERT INTO incident (id, execution_id, key, step_id, visit, item, code, message, opened_at)
    SELECT id, CAST(:execution_id AS uuid), key, step_id, visit, item,
        coalesce(code, 'FAILED'), coalesce(message, ''), at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS rows(
        id uuid, key text, step_id text, visit int, item int, code text, message text, at timestamptz
    )
    ON CONFLICT (execution_id, key, opened_at) DO NOTHING
""")
CLOSE_INCIDENTS = text("""
    UPDATE incident SET resolved_at = rows.at, resolution = rows.resolution, actor = rows.actor
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS rows(key text, resolution text, actor text, at timestamptz)
    WHERE incident.execution_id = :execution_id AND incident.key = rows.key
        AND incident.resolved_at IS NULL AND incident.opened_at <= rows.at
""")


async def record_steps(session: AsyncSession, request: RecordSteps) -> None:
    """Writes what has become of human tasks and incidents, in the order given; repeating it changes nothing."""
    for opens, tasks in groupby(request.tasks, lambda task: task.status == "OPEN"):
        statement = OPEN_TASKS if opens else CLOSE_TASKS
        for batch in _one_of_each(tuple(tasks)):
            await session.execute(statement, _given(request.execution_id, batch))
    for opens, incidents in groupby(request.incidents, lambda incident: incident.resolution is None):
        statement = OPEN_INCIDENTS if opens else CLOSE_INCIDENTS
        for batch in _one_of_each(tuple(incidents)):
            await session.execute(statement, _given(request.execution_id, batch))


def _one_of_each(records: Sequence[TaskRecord | IncidentRecord]) -> Iterator[list[TaskRecord | IncidentRecord]]:
    """The records in batches that hold each key once: one statement cannot change the same row twice."""
    batch: dict[str, TaskRecord | IncidentRecord] = {}
    for record in records:
        if record.key in batch:
            yield list(batch.values())
            batch = {}
        batch[record.key] = record
    if batch:
        yield list(batch.values())


def _given(execution_id: UUID, records: Sequence[TaskRecord | IncidentRecord]) -> dict[str, Any]:
    rows = [made_storable({**record.model_dump(), "id": str(new_id())}) for record in records]
    return {"execution_id": execution_id, "rows": json.dumps(rows, allow_nan=False)}
