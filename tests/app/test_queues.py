"""What becomes of events whose template is paused: refused, or queued until it may be started again."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select
from sqlmodel import col

from app.db.event_tables import TriggerDelivery
from app.db.session import Database
from app.db.tables import WorkflowExecution
from tests.app.inbox_scenes import incoming_event, read_deliveries, read_event, store_events, subscribe
from tests.app.scenes import Json, active_template, create_template, link, ok, purchase, refused, webhook

PURCHASES = "/triggers/product-purchases"


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.05)


async def _paused(api: httpx.AsyncClient, **fields: str) -> Json:
    template = await active_template(api, **({"whenPaused": "QUEUE"} | fields))
    return await ok(await api.post(f"/templates/{template['id']}/pause"))


async def _resume(api: httpx.AsyncClient, template: Json, action: str = "resume") -> None:
    await ok(await api.post(f"/templates/{template['id']}/{action}"))


async def _executions(database: Database, template: Json) -> list[WorkflowExecution]:
    async with database.transaction() as session:
        statement = select(WorkflowExecution).where(col(WorkflowExecution.template_id) == UUID(template["id"]))
        return [*(await session.execute(statement.order_by(col(WorkflowExecution.id)))).scalars()]


async def _delivery(database: Database, answer: Json) -> TriggerDelivery:
    (delivery,) = await read_deliveries(database, UUID(answer["eventRecordId"]))
    return delivery


async def test_a_template_says_what_becomes_of_events_while_it_is_paused(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    assert template["whenPaused"] == "REFUSE"
    changed = await ok(await api.patch(f"/templates/{template['id']}", json={"whenPaused": "QUEUE"}))
    assert changed["whenPaused"] == "QUEUE"
    assert (await ok(await api.get(f"/templates/{template['id']}")))["whenPaused"] == "QUEUE"
    refused(await api.patch(f"/templates/{template['id']}", json={"whenPaused": "LATER"}), 422, "REQUEST_INVALID")


async def test_a_purchase_of_a_paused_template_is_queued_and_started_when_it_is_resumed(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await _paused(api)
    body = purchase(await link(api, template))
    answer = await ok(await api.post(PURCHASES, json=body), 202)
    message = f"Template {template['slug']} is PAUSED."
    assert answer == {
        "eventRecordId": answer["eventRecordId"],
        "matched": True,
        "status": "QUEUED",
        "problem": {"code": "TEMPLATE_PAUSED", "message": message},
    }
    # The same event again waits as before.
    assert await ok(await api.post(PURCHASES, json=body), 202) == answer
    event = await ok(await api.get(f"/trigger-events/{answer['eventRecordId']}"))
    assert (event["status"], event["deliveries"][0]["status"]) == ("PENDING", "PENDING")
    assert (event["deliveries"][0]["code"], event["deliveries"][0]["message"]) == ("TEMPLATE_PAUSED", message)
    assert await _executions(database, template) == []

    await _resume(api, template)
    await _until(lambda: _is(database, answer, "STARTED"))
    (row,) = await _executions(database, template)
    assert (row.id, row.context) == ((await _delivery(database, answer)).execution_id, {"amount": 1})
    repeated = await ok(await api.post(PURCHASES, json=body))
    assert repeated["executionId"] == str(row.id)


async def _is(database: Database, answer: Json, status: str) -> bool:
    return (await _delivery(database, answer)).status == status


async def test_a_start_by_hand_is_queued_too_and_keeps_what_was_asked(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await _paused(api)
    body = {"context": {"a": 1}, "name": "Later", "version": "1.0.0"}
    path, headers = f"/templates/{template['id']}/execute?wait=PT5S", {"Idempotency-Key": "k"}
    answer = await ok(await api.post(path, json=body, headers=headers), 202)
    assert set(answer) == {"status", "eventRecordId", "problem"}
    assert (answer["status"], answer["problem"]["code"]) == ("QUEUED", "TEMPLATE_PAUSED")
    assert await ok(await api.post(path, json=body, headers=headers), 202) == answer
    await _resume(api, template)
    await _until(lambda: _is(database, answer, "STARTED"))
    (row,) = await _executions(database, template)
    assert (row.context, row.name) == ({"a": 1}, "Later")
    assert row.idempotency_key is not None


async def test_a_queue_is_started_in_the_order_in_which_its_events_came(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await _paused(api)
    await subscribe(database, template, "queue_in_order")
    events = [incoming_event("queue_in_order", payload={"number": number}) for number in range(120)]
    await store_events(database, *events)

    async def queued() -> bool:
        return (await _codes(database, template)).count("TEMPLATE_PAUSED") == 120

    await _until(queued)
    await _resume(api, template)

    async def started() -> bool:
        return len(await _executions(database, template)) == 120

    await _until(started)
    assert [row.context["number"] for row in await _executions(database, template)] == list(range(120))
    assert (await read_event(database, events[-1].id)).status == "HANDLED"


async def _codes(database: Database, template: Json) -> list[str | None]:
    async with database.transaction() as session:
        statement = select(col(TriggerDelivery.code)).where(col(TriggerDelivery.template_id) == UUID(template["id"]))
        return [*(await session.execute(statement)).scalars()]


@pytest.mark.parametrize(("action", "code"), [("archive", "TEMPLATE_ARCHIVED"), ("refuse", "TEMPLATE_PAUSED")])
async def test_what_is_queued_is_refused_once_the_template_queues_no_more(
    api: httpx.AsyncClient, database: Database, action: str, code: str
) -> None:
    template = await _paused(api)
    answer = await ok(await api.post(PURCHASES, json=purchase(await link(api, template))), 202)
    if action == "archive":
        await _resume(api, template, action)
    else:
        await ok(await api.patch(f"/templates/{template['id']}", json={"whenPaused": "REFUSE"}))
    await _until(lambda: _is(database, answer, "REFUSED"))
    assert (await _delivery(database, answer)).code == code
    assert await _executions(database, template) == []


async def test_an_archived_template_queues_nothing(api: httpx.AsyncClient) -> None:
    template = await active_template(api, whenPaused="QUEUE")
    await _resume(api, template, "archive")
    refused(await api.post(f"/templates/{template['id']}/execute", json={}), 422, "TEMPLATE_ARCHIVED")


async def test_what_cannot_be_started_is_refused_when_its_turn_comes(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await _paused(api)
    body = {"context": {}, "version": "9.0.0"}
    answer = await ok(await api.post(f"/templates/{template['id']}/execute", json=body), 202)
    await _resume(api, template)
    await _until(lambda: _is(database, answer, "REFUSED"))
    assert (await _delivery(database, answer)).code == "VERSION_NOT_FOUND"


async def test_a_webhook_that_waits_for_the_result_of_what_is_queued_is_told_that_it_was_kept(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await _paused(api)
    response = {"mode": "SYNC", "timeoutSeconds": 1}
    endpoint = await webhook(api, templateId=template["id"], response=response)
    answer = await ok(await api.post(f"/hooks/{endpoint['path']}", json={"order": 1}), 202)
    assert (await _delivery(database, answer)).code == "TEMPLATE_PAUSED"
