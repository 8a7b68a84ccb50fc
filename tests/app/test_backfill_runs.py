"""Backfills with a worker: what is started, once, how fast, and what people can do to it meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from temporalio.client import Client
from temporalio.converter import DataConverter

from app.backfill_contracts import BACKFILL_WORKFLOW, BackfillRun, backfill_workflow_id
from app.db.session import Database
from app.db.tables import WorkflowExecution
from app.settings import Settings
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, create_template, link, ok, purchase, with_input_schema
from tests.documents import confirm, line
from tests.workflows.harness import ACTIONS, replayer
from worker import build_worker

AMOUNTS = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "integer"}}}
OVER = ("COMPLETED", "CANCELLED", "FAILED")


@pytest.fixture(scope="module", autouse=True)
async def working(
    temporal_address: str, settings: Settings, database: Database, temporal: Temporal, converter: DataConverter
) -> AsyncIterator[None]:
    """A worker on the module's task queue; at the end every backfill's history is replayed."""
    client = await Client.connect(temporal_address, data_converter=converter)
    async with build_worker(client, database, settings, ACTIONS):
        yield
    queue = settings.temporal.task_queue
    found = client.list_workflows(f"TaskQueue = '{queue}' AND WorkflowType = '{BACKFILL_WORKFLOW}'")
    async for run in found:
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        await replayer(converter).replay_workflow(await handle.fetch_history())


def row(number: int, **fields: Any) -> Json:
    return {"number": number, "context": {"amount": number}, **fields}


async def loaded(api: httpx.AsyncClient, rows: list[Json], **fields: Any) -> str:
    """The path of a backfill with these rows."""
    made = await ok(await api.post("/backfills", json={"name": "Past requests", **fields}), 201)
    path = f"/backfills/{made['id']}"
    await ok(await api.post(f"{path}/rows", json={"rows": rows}))
    return path


async def begun(api: httpx.AsyncClient, rows: list[Json], **fields: Any) -> str:
    path = await loaded(api, rows, **fields)
    await ok(await api.post(f"{path}/start"), 202)
    return path


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    for _ in range(400):
        found = await condition()
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come true in time")


async def ended(api: httpx.AsyncClient, path: str) -> Json:
    async def over() -> Json | None:
        found = await ok(await api.get(path))
        return found if found["status"] in OVER else None

    found: Json = await until(over)
    return found


async def rows_of(api: httpx.AsyncClient, path: str) -> list[Json]:
    page = await ok(await api.get(f"{path}/rows", params={"limit": 100}))
    items: list[Json] = page["items"]
    return items


async def executions_of(api: httpx.AsyncClient, template: Json) -> list[Json]:
    page = await ok(await api.get("/executions", params={"template": template["slug"], "limit": 100}))
    items: list[Json] = page["items"]
    return items


async def test_each_row_starts_one_execution(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    path = await begun(api, [row(n, name=f"Request {n}") for n in range(2, 42)], template=template["slug"])
    found = await ended(api, path)
    assert (found["status"], found["rows"]["started"], found["rows"]["total"]) == ("COMPLETED", 40, 40)
    assert found["endedAt"] is not None
    started = await executions_of(api, template)
    assert {one["name"] for one in started} == {f"Request {n}" for n in range(2, 42)}
    assert {one["executionId"] for one in await rows_of(api, path)} == {one["id"] for one in started}

    async def none_open() -> bool:
        return bool((await ok(await api.get(path)))["open"] == 0)

    await until(none_open)


async def test_a_row_that_is_refused_hinders_no_other(api: httpx.AsyncClient) -> None:
    template = await active_template(api, with_input_schema(AMOUNTS))
    rows = [row(1), row(2, context={"amount": "two"}), {"number": 3, "code": "CSV_INVALID", "message": "no"}, row(4)]
    found = await ended(api, await begun(api, rows, template=template["slug"]))
    assert found["status"] == "COMPLETED"
    assert {name: count for name, count in found["rows"].items() if count} == {
        "total": 4,
        "started": 2,
        "refused": 1,
        "invalid": 1,
    }
    refused = [one for one in await rows_of(api, f"/backfills/{found['id']}") if one["status"] == "REFUSED"]
    assert [(one["number"], one["code"]) for one in refused] == [(2, "CONTEXT_INVALID")]
    assert "context.amount" in refused[0]["message"]


async def test_rows_of_entities_start_what_is_linked_to_each(api: httpx.AsyncClient) -> None:
    one, other = await active_template(api), await active_template(api)
    at_rest = await link(api, await create_template(api))
    rows = [
        row(1, entityId=await link(api, one)),
        row(2, entityId=await link(api, other), eventId="past-1"),
        row(3, entityId="nobody"),
        row(4, entityId=at_rest),
    ]
    path = await begun(api, rows, entityType="PRODUCT")
    await ended(api, path)
    assert [(each["status"], each["code"]) for each in await rows_of(api, path)] == [
        ("STARTED", None),
        ("STARTED", None),
        ("REFUSED", "UNLINKED"),
        ("REFUSED", "TEMPLATE_NOT_ACTIVE"),
    ]
    for template in (one, other):
        [execution] = await executions_of(api, template)
        assert execution["entityType"] == "PRODUCT"


async def test_what_was_started_live_is_not_started_again(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    entity = await link(api, template)
    same, changed = purchase(entity), purchase(entity)
    live = [(await ok(await api.post("/triggers/product-purchases", json=one), 202)) for one in (same, changed)]
    rows = [
        {"number": 1, "entityId": entity, "eventId": same["eventId"], "context": same["context"]},
        {"number": 2, "entityId": entity, "eventId": changed["eventId"], "context": {"amount": 99}},
        {"number": 3, "entityId": entity, "eventId": "only-here", "context": {"amount": 3}},
    ]
    path = await begun(api, rows, entityType="PRODUCT")
    found = await ended(api, path)
    assert (found["rows"]["repeated"], found["rows"]["started"]) == (2, 1)
    became = await rows_of(api, path)
    assert [one["executionId"] for one in became[:2]] == [one["executionId"] for one in live]
    assert [one["code"] for one in became] == [None, "CONTENT_DIFFERS", None]
    assert len(await executions_of(api, template)) == 3
    # And the other way about: what a backfill has started is known when it comes live.
    body = {"eventId": "only-here", "entityId": entity, "context": {"amount": 3}}
    again = await ok(await api.post("/triggers/product-purchases", json=body))
    assert again["executionId"] == became[2]["executionId"]


async def test_an_event_is_started_once_by_all_backfills_of_a_template(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    rows = [row(n, eventId=f"e-{n}") for n in (1, 2)]
    await ended(api, await begun(api, rows, template=template["slug"]))
    found = await ended(api, await begun(api, [*rows, row(3, eventId="e-3")], template=template["slug"]))
    assert (found["rows"]["repeated"], found["rows"]["started"]) == (2, 1)
    # Rows without events of their own are new each time.
    assert (await ended(api, await begun(api, [row(1)], template=template["slug"])))["rows"]["started"] == 1
    assert len(await executions_of(api, template)) == 4


async def test_a_paused_backfill_starts_nothing_until_it_is_resumed(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    path = await begun(api, [row(n) for n in range(1, 31)], template=template["slug"], rate=10)

    async def some() -> bool:
        return bool((await ok(await api.get(path)))["rows"]["started"])

    await until(some)
    await ok(await api.post(f"{path}/pause"))
    await asyncio.sleep(1.5)
    before = (await ok(await api.get(path)))["rows"]["started"]
    await asyncio.sleep(1.5)
    found = await ok(await api.get(path))
    assert (found["status"], found["rows"]["started"]) == ("PAUSED", before)
    assert before < 30
    await ok(await api.post(f"{path}/resume"))
    found = await ended(api, path)
    assert (found["status"], found["rows"]["started"]) == ("COMPLETED", 30)


async def test_a_cancelled_backfill_leaves_its_rows_unstarted(api: httpx.AsyncClient, temporal_client: Client) -> None:
    template = await active_template(api)
    path = await begun(api, [row(n) for n in range(1, 101)], template=template["slug"], rate=5)

    async def some() -> bool:
        return bool((await ok(await api.get(path)))["rows"]["started"])

    await until(some)
    found = await ok(await api.post(f"{path}/cancel"))
    run = temporal_client.get_workflow_handle(backfill_workflow_id(found["id"]))
    await asyncio.wait_for(run.result(), 10)
    found = await ok(await api.get(path))
    assert found["status"] == "CANCELLED"
    assert found["rows"]["pending"] > 50
    assert len(await executions_of(api, template)) == found["rows"]["started"]


async def test_a_paused_backfill_can_be_cancelled(api: httpx.AsyncClient, temporal_client: Client) -> None:
    template = await active_template(api)
    path = await begun(api, [row(n) for n in range(1, 101)], template=template["slug"], rate=1)
    await ok(await api.post(f"{path}/pause"))
    found = await ok(await api.post(f"{path}/cancel"))
    await asyncio.wait_for(temporal_client.get_workflow_handle(backfill_workflow_id(found["id"])).result(), 10)
    assert found["rows"]["pending"] > 90


async def test_rows_are_started_at_the_rate_that_is_asked_for(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    path = await begun(api, [row(n) for n in range(1, 61)], template=template["slug"], rate=15)
    assert (await ended(api, path))["rows"]["started"] == 60
    async with database.transaction() as session:
        found = await session.execute(
            text("SELECT created_at FROM workflow_execution WHERE template_id = :id ORDER BY created_at"),
            {"id": UUID(template["id"])},
        )
        times: list[datetime] = [one for (one,) in found]
    seconds = (times[-1] - times[0]).total_seconds()
    # A tick's worth may come early at the beginning; on a busy machine starts come late, never early.
    assert seconds >= 2.5
    for first in range(0, 40, 10):
        assert (times[first + 20] - times[first]).total_seconds() > 0.2


async def test_no_more_executions_are_open_than_may_be(api: httpx.AsyncClient) -> None:
    template = await active_template(api, line(confirm("ask")))
    path = await begun(api, [row(n) for n in range(1, 7)], template=template["slug"], concurrency=2)

    seen: set[str] = set()
    for _ in range(3):

        async def both(before: frozenset[str] = frozenset(seen)) -> list[str] | None:
            found = [one["id"] for one in await executions_of(api, template) if one["endedAt"] is None]
            assert len(found) <= 2
            return found if len(found) == 2 and before.isdisjoint(found) else None

        pair: list[str] = await until(both)
        await asyncio.sleep(0.7)
        assert len(await executions_of(api, template)) == len(seen) + 2
        seen |= {*pair}
        for execution_id in pair:
            await ok(await api.post(f"/executions/{execution_id}/cancel", json={}), 202)
    found = await ended(api, path)
    assert (found["rows"]["started"], len(seen)) == (6, 6)


async def test_a_long_backfill_goes_on_in_new_runs(
    api: httpx.AsyncClient, temporal_client: Client, settings: Settings
) -> None:
    template = await active_template(api)
    path = await loaded(api, [row(n) for n in range(1, 31)], template=template["slug"], rate=10)
    backfill_id = UUID(path.rpartition("/")[2])
    run = await temporal_client.start_workflow(
        BACKFILL_WORKFLOW,
        BackfillRun(backfill_id=backfill_id, rate=10, most_events=12),
        id=backfill_workflow_id(backfill_id),
        task_queue=settings.temporal.task_queue,
    )
    await ok(await api.post(f"{path}/start"), 202)
    found = await ended(api, path)
    assert found["rows"]["started"] == 30
    await asyncio.wait_for(run.result(), 10)
    runs = [one async for one in temporal_client.list_workflows(f"WorkflowId = '{run.id}'")]
    assert len(runs) > 1
    assert len(await executions_of(api, template)) == 30


async def test_a_backfill_whose_template_is_deleted_fails(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    path = await loaded(api, [row(1)], template=template["slug"])
    answer = await api.delete(f"/templates/{template['id']}")
    assert answer.status_code == 204
    await ok(await api.post(f"{path}/start"), 202)
    found = await ended(api, path)
    assert (found["status"], found["statusReason"]) == ("FAILED", "Its template has been deleted.")


async def test_a_backfill_without_rows_is_over_at_once(api: httpx.AsyncClient) -> None:
    made = await ok(await api.post("/backfills", json={"name": "none", "entityType": "PRODUCT"}), 201)
    await ok(await api.post(f"/backfills/{made['id']}/start"), 202)
    assert (await ended(api, f"/backfills/{made['id']}"))["status"] == "COMPLETED"


async def test_an_execution_says_which_row_it_was_started_for(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    path = await begun(api, [row(7)], template=template["slug"])
    await ended(api, path)
    [became] = await rows_of(api, path)
    async with database.transaction() as session:
        execution = await session.get_one(WorkflowExecution, UUID(became["executionId"]))
    assert execution.trigger is not None
    assert execution.trigger["source"] == "backfill"
    assert execution.trigger["summary"] == "backfill Past requests · row 7"
    assert execution.trigger["eventRecordId"] == became["eventRecordId"]
