"""Ticks that last: on a server that suggests to continue as new after a few events."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from temporalio.client import Client

from app.contracts import TICK_WORKFLOW, schedule_id_of
from app.db.session import Database
from tests.app.clockwork import NEVER, create_schedule, events_of, until, until_events
from tests.app.scenes import Json, active_template, ok
from tests.app.test_schedule_ticks import WAITING
from tests.short_histories import suggesting_early

SUGGESTED_AFTER = 12


@pytest.fixture(scope="module")
async def temporal_address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with suggesting_early(tmp_path_factory.mktemp("temporal"), SUGGESTED_AFTER) as address:
        yield address


async def _running_tick(api: httpx.AsyncClient, client: Client, schedule: Json) -> str:
    """Asks for a tick and returns when it has continued as new; the execution that it started."""
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)

    async def started() -> str | None:
        runs = (await ok(await api.get(f"/schedules/{schedule['id']}/runs")))["items"]
        return runs[0]["executionIds"][0] if runs and runs[0]["executionIds"] else None

    execution: str = await until(started)

    async def continued() -> bool:
        query = f"WorkflowType = '{TICK_WORKFLOW}' AND ExecutionStatus = 'ContinuedAsNew'"
        wanted = schedule_id_of(schedule["id"])
        return any(one.id.startswith(wanted) for one in [each async for each in client.list_workflows(query)])

    await until(continued)
    return execution


@pytest.mark.usefixtures("working")
async def test_the_next_time_is_left_out_though_the_tick_has_continued_as_new(
    api: httpx.AsyncClient, database: Database, worker_client: Client
) -> None:
    template = await active_template(api, WAITING)
    schedule = await create_schedule(api, NEVER, {"templateId": template["id"], "context": {}}, overlap="SKIP")
    execution = await _running_tick(api, worker_client, schedule)
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    await asyncio.sleep(1.5)
    assert len(await events_of(database, schedule)) == 1
    await ok(await api.post(f"/executions/{execution}/steps/ask/complete", json={}))

    async def another() -> bool:
        await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
        await asyncio.sleep(0.5)
        return len(await events_of(database, schedule)) == 2

    await until(another)


@pytest.mark.usefixtures("working")
async def test_what_was_started_is_cancelled_though_the_tick_has_continued_as_new(
    api: httpx.AsyncClient, database: Database, worker_client: Client
) -> None:
    template = await active_template(api, WAITING)
    schedule = await create_schedule(api, NEVER, {"templateId": template["id"], "context": {}}, overlap="CANCEL_OTHER")
    execution = await _running_tick(api, worker_client, schedule)
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    await until_events(database, schedule, 2)
    assert (await ok(await api.get(f"/executions/{execution}")))["runtimeStatus"] == "CANCELLED"
