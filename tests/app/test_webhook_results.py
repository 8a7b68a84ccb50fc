"""Endpoints that answer with the result of what they start.

What delivers events is another's: here it is a few lines that start each by hand, as one request after the other.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
from temporalio.converter import DataConverter

from app.db.session import Database
from tests.app.scenes import Json, active_template, ok, refused, webhook
from tests.app.tiny_workflow import running_worker

PENDING = "SELECT id, template_id, payload FROM trigger_event WHERE source = 'webhook' AND status = 'PENDING'"
DELIVER = """
    WITH delivered AS (
        INSERT INTO trigger_delivery (id, event_id, target, kind, execution_id, status, attempts)
        VALUES ($1, $2, 'template', 'START', $3, 'STARTED', 1)
    )
    UPDATE trigger_event SET status = 'HANDLED' WHERE id = $2
"""


@pytest.fixture(scope="module", autouse=True)
async def worker(temporal_address: str, task_queue: str, converter: DataConverter) -> AsyncIterator[None]:
    async with running_worker(temporal_address, task_queue, converter):
        yield


@asynccontextmanager
async def delivering(api: httpx.AsyncClient, database: Database, **context: Any) -> AsyncIterator[None]:
    async def deliver() -> None:
        while True:
            async with database.driver() as connection:
                for event in await connection.fetch(PENDING):
                    given = {**event["payload"]["context"], **context}
                    path = f"/templates/{event['template_id']}/execute"
                    started = await ok(await api.post(path, json={"context": given}), 202)
                    await connection.execute(DELIVER, uuid4(), event["id"], started["executionId"])
            await asyncio.sleep(0.05)

    running = asyncio.create_task(deliver())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def synchronous(api: httpx.AsyncClient, seconds: float = 10) -> Json:
    template = await active_template(api)
    return await webhook(api, template=template["id"], response={"mode": "SYNC", "timeoutSeconds": seconds})


async def test_a_synchronous_webhook_is_answered_with_the_output_also_when_it_comes_again(
    api: httpx.AsyncClient, database: Database
) -> None:
    endpoint = await synchronous(api)
    async with delivering(api, database):
        for _ in range(2):
            headers = {"Idempotency-Key": "once"}
            answer = await api.post(f"/hooks/{endpoint['path']}", json={"id": 7}, headers=headers)
            assert (await ok(answer))["context"]["body"] == {"id": 7}


async def test_who_waits_in_vain_is_told_that_the_event_is_kept(api: httpx.AsyncClient, database: Database) -> None:
    endpoint = await synchronous(api, seconds=1)
    address = f"/hooks/{endpoint['path']}"
    assert set(await ok(await api.post(address), 202)) == {"eventRecordId"}
    async with delivering(api, database, do="wait"):
        assert set(await ok(await api.post(address), 202)) == {"eventRecordId"}


async def test_an_execution_that_fails_is_said_to_have_failed(api: httpx.AsyncClient, database: Database) -> None:
    endpoint = await synchronous(api)
    async with delivering(api, database, do="fail"):
        problem = refused(await api.post(f"/hooks/{endpoint['path']}"), 500, "EXECUTION_FAILED")
    assert problem["detail"].endswith("ended FAILED: NO_STOCK.")
    assert "nothing left" not in json.dumps(problem)
