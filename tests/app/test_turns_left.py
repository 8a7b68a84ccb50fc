"""What the reconciler comes back to: however many there are that cannot be mended, the others get their turn."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from app.db.session import Database
from app.db.statuses import LineageKind, LineageStatus
from app.db.tables import ClosedAs, ExecutionLineage, RecordStatus, WorkflowExecution, new_id
from app.executions.lineage import Pages
from app.executions.orphans import BATCH, end_orphans
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, ok


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api)
    return await ok(await api.get(f"/templates/{template['id']}"))


def _row(template: Json, parent: WorkflowExecution | None = None, **fields: object) -> WorkflowExecution:
    execution_id = new_id()
    values = {
        "id": execution_id,
        "name": "One",
        "version_id": UUID(template["activeVersionId"]),
        "template_id": UUID(template["id"]),
        "root_id": execution_id if parent is None else parent.id,
        "parent_id": None if parent is None else parent.id,
        "context": {},
        "status": RecordStatus.STARTED,
        "started_at": datetime.now(UTC),
    }
    return WorkflowExecution(**(values | fields))


async def test_an_orphan_is_ended_however_many_come_before_it(
    database: Database, temporal: Temporal, template: Json, temporal_client: Client
) -> None:
    ended = {"status": RecordStatus.COMPLETED, "closed_as": ClosedAs.TERMINATED, "ended_at": datetime.now(UTC)}
    parent = _row(template, **ended)
    children = [_row(template, parent) for _ in range(BATCH + 1)]
    async with database.transaction() as session:
        session.add(parent)
        await session.flush()
        session.add_all(children)
    # Nothing can be done about the others, whose runs are unknown.
    last = max(child.id for child in children)
    handle = await temporal_client.start_workflow(template["slug"], id=f"execution/{last}", task_queue="nobody")
    assert await end_orphans(database, temporal) == 1
    asked = [
        event.HasField("workflow_execution_cancel_requested_event_attributes")
        for event in (await handle.fetch_history()).events
    ]
    assert any(asked)
    assert (await handle.describe()).status == WorkflowExecutionStatus.RUNNING


async def test_turns_that_are_left_are_looked_at_page_by_page(database: Database, template: Json) -> None:
    rows = [_row(template) for _ in range(3)]
    turns = [
        ExecutionLineage(
            execution_id=row.id,
            kind=LineageKind.MIGRATE,
            status=LineageStatus.PENDING,
            at=datetime.now(UTC) - timedelta(hours=1),
            to_version_id=row.version_id,
        )
        for row in rows
    ]
    async with database.transaction() as session:
        session.add_all(rows)
        await session.flush()
        session.add_all(turns)
    pages = Pages()
    read = []
    async with database.transaction() as session:
        for _ in range(4):
            read.append(await pages.following(session, (LineageKind.MIGRATE,), datetime.now(UTC), 2))
    first, second, third = sorted(turn.id for turn in turns)
    assert read == [[first, second], [third], [first, second], [third]]
