"""Human tasks that are open in their rows: those stay that their run waits for, and the others are closed."""

import asyncio
from datetime import timedelta
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from app.contracts import RecordSteps, TaskRecord
from app.db.session import Database
from app.executions.abandoned_tasks import PAGE
from app.executions.reconciler import Sweep, reconcile_once
from app.executions.records import record_steps
from app.temporal import Temporal
from tests.app.scenes import active_template, ok
from tests.documents import confirm, line

GRACE = timedelta(seconds=10)
TASKS = "SELECT key, status FROM human_task WHERE execution_id = :id ORDER BY key"
# As if it had been written some time ago.
AGE = "UPDATE human_task SET updated_at = now() - interval '1 hour', recorded_at = recorded_at - interval '1 hour'"


async def _tasks(database: Database, execution_id: UUID) -> dict[str, str]:
    async with database.transaction() as session:
        return {row[0]: row[1] for row in await session.execute(text(TASKS), {"id": execution_id})}


async def _record(database: Database, execution_id: UUID, status: str, at: str) -> None:
    """What a run says of a second visit of its step."""
    task = TaskRecord.model_validate(
        {"key": "approve#2", "stepId": "approve", "visit": 2, "status": status, "at": at, "name": "Approve"}
    )
    async with database.transaction() as session:
        await record_steps(session, RecordSteps(execution_id=execution_id, tasks=[task], incidents=[]))


async def _waiting(api: httpx.AsyncClient, database: Database) -> UUID:
    """An execution that waits for a person, and whose rows say that it waits for another, too."""
    template = await active_template(api, line(confirm("approve")))
    started = await ok(await api.post(f"/templates/{template['id']}/execute", json={}), 202)
    execution_id = UUID(started["executionId"])
    async with asyncio.timeout(30):
        while not await _tasks(database, execution_id):
            await asyncio.sleep(0.1)
    await _record(database, execution_id, "OPEN", "2026-05-01T10:00:00+00:00")
    return execution_id


async def _age(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text(AGE))


async def _reconcile(database: Database, temporal: Temporal) -> int:
    sweep, closed = Sweep(), 0
    while True:
        closed += (await reconcile_once(database, temporal, GRACE, sweep)).leftovers
        if sweep.after_tasks is None:
            return closed


@pytest.mark.usefixtures("working")
async def test_a_task_that_no_run_waits_for_is_closed_once_it_is_old_enough(
    api: httpx.AsyncClient, database: Database, temporal: Temporal
) -> None:
    execution_id = await _waiting(api, database)
    (waited_for,) = set(await _tasks(database, execution_id)) - {"approve#2"}
    assert await _reconcile(database, temporal) == 0
    await _age(database)
    assert await _reconcile(database, temporal) == 1
    assert await _tasks(database, execution_id) == {waited_for: "OPEN", "approve#2": "CANCELLED"}
    assert await _reconcile(database, temporal) == 0
    # What the run says later counts.
    await _record(database, execution_id, "COMPLETED", "2026-05-01T10:00:00+00:00")
    assert (await _tasks(database, execution_id))["approve#2"] == "COMPLETED"


@pytest.mark.usefixtures("working")
async def test_every_page_of_executions_is_compared(
    api: httpx.AsyncClient, database: Database, temporal: Temporal
) -> None:
    executions = [await _waiting(api, database) for _ in range(PAGE + 2)]
    await _age(database)
    assert await _reconcile(database, temporal) == PAGE + 2
    for execution_id in executions:
        assert sorted((await _tasks(database, execution_id)).values()) == ["CANCELLED", "OPEN"]


async def test_nothing_is_closed_while_no_worker_can_say_what_a_run_waits_for(
    api: httpx.AsyncClient, database: Database, temporal: Temporal
) -> None:
    template = await active_template(api, line(confirm("approve")))
    started = await ok(await api.post(f"/templates/{template['id']}/execute", json={}), 202)
    execution_id = UUID(started["executionId"])
    await _record(database, execution_id, "OPEN", "2026-05-01T10:00:00+00:00")
    await _age(database)
    assert await _reconcile(database, temporal) == 0
    assert await _tasks(database, execution_id) == {"approve#2": "OPEN"}
