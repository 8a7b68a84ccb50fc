"""Runs that failed and could not say so: the reconciler closes their rows and keeps a dead letter."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.converter import DataConverter
from temporalio.worker import Worker

from app.db.session import Database
from app.executions.reconciler import reconcile_once
from app.payloads.storage import PayloadStorage
from app.settings import Settings
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, ok
from tests.app.steering import row_of
from tests.app.tiny_workflow import running_worker

NOW = timedelta(0)

Working = Callable[[], AbstractAsyncContextManager[Worker]]


@pytest.fixture
def working(temporal_address: str, task_queue: str, converter: DataConverter) -> Working:
    """Makes a worker, for as long as it is wanted."""
    return lambda: running_worker(temporal_address, task_queue, converter)


@pytest.fixture
async def template(api: httpx.AsyncClient) -> Json:
    return await active_template(api)


async def closed_by_the_reconciler(database: Database, temporal: Temporal, execution_id: str) -> str | None:
    for _ in range(100):
        await reconcile_once(database, temporal, NOW)
        row = await row_of(database, execution_id)
        if row.closed_as is not None:
            assert row.closed_as == "FAILED"
            return row.status_reason
        await asyncio.sleep(0.1)
    raise AssertionError("the row was not closed")


async def letter(database: Database, execution_id: str) -> tuple[str, str, str, int, str]:
    async with database.driver() as connection:
        row = await connection.fetchrow(
            "SELECT step_id, code, message, attempts, state::text FROM dead_letter WHERE execution_id = $1",
            UUID(execution_id),
        )
    assert row is not None, "there is no dead letter"
    return tuple(row)


async def fails(api: httpx.AsyncClient, temporal_client: Client, template: Json, how: str) -> str:
    started = await api.post(f"/templates/{template['id']}/execute", json={"context": {"do": how}})
    execution_id: str = (await ok(started, 202))["executionId"]
    handle = temporal_client.get_workflow_handle(f"execution/{execution_id}")
    while (await handle.describe()).status != WorkflowExecutionStatus.FAILED:
        await asyncio.sleep(0.05)
    return execution_id


@pytest.mark.parametrize("answered", [True, False], ids=["a worker answers", "no worker answers"])
async def test_a_run_that_failed_without_saying_so_leaves_a_dead_letter(
    api: httpx.AsyncClient,
    database: Database,
    temporal: Temporal,
    template: Json,
    temporal_client: Client,
    working: Working,
    answered: bool,
) -> None:
    async with working():
        execution_id = await fails(api, temporal_client, template, "fail")
        if answered:
            assert await closed_by_the_reconciler(database, temporal, execution_id) == "NO_STOCK: nothing left"
    if not answered:
        assert await closed_by_the_reconciler(database, temporal, execution_id) == "NO_STOCK: nothing left"
    *said, state = await letter(database, execution_id)
    assert said == ["note", "NO_STOCK", "nothing left", 3]
    assert state == ('{"asked": []}' if answered else "null")
    read = await ok(await api.get("/dead-letters"))
    assert execution_id in {one["executionId"] for one in read["items"]}


async def test_a_run_that_failed_with_what_no_row_can_hold_is_closed_all_the_same(
    api: httpx.AsyncClient,
    database: Database,
    temporal: Temporal,
    template: Json,
    temporal_client: Client,
    working: Working,
) -> None:
    async with working():
        execution_id = await fails(api, temporal_client, template, "fail unreadably")
        reason = await closed_by_the_reconciler(database, temporal, execution_id)
    assert reason is not None
    assert reason.startswith("NO_STOCK: nothing\ufffdleft!")
    assert len(reason) == 2_000


async def test_a_run_whose_failure_has_been_lost_is_closed_and_holds_up_no_other(
    api: httpx.AsyncClient,
    database: Database,
    settings: Settings,
    database_url: str,
    template: Json,
    temporal_client: Client,
    working: Working,
) -> None:
    storage = PayloadStorage(database_url, settings.payloads, settings.database)
    forgetful = Temporal(settings.temporal, storage.converter)
    async with working():
        lost = await fails(api, temporal_client, template, "fail at length")
        async with database.driver() as connection:
            assert await connection.execute("DELETE FROM payload_blob WHERE size > 100000") == "DELETE 1"
        other = await fails(api, temporal_client, template, "fail")
        assert await closed_by_the_reconciler(database, forgetful, other) == "NO_STOCK: nothing left"
        await closed_by_the_reconciler(database, forgetful, lost)
    await storage.close()
    async with database.driver() as connection:
        assert await connection.fetchval("SELECT count(*) FROM dead_letter WHERE execution_id = $1", UUID(lost)) == 0
