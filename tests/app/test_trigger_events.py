"""Events over HTTP: those whose senders wait, the inbox as people see it, and delivering again."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
from sqlalchemy import select
from sqlmodel import col

from app.db.event_tables import Subscription, TriggerEvent
from app.db.session import Database
from app.db.statuses import EventStatus
from app.inbox.service import purge_events
from tests.app.inbox_scenes import incoming_event, read_deliveries, read_event, store_events, subscribe
from tests.app.scenes import active_template, create_template, link, ok, purchase, refused

PURCHASES = "/triggers/product-purchases"


async def test_a_thousand_deliveries_of_one_event_at_once_start_one_execution(
    api: httpx.AsyncClient, database: Database
) -> None:
    body = purchase(await link(api, await active_template(api)))
    limits = httpx.Limits(max_connections=100)

    async with httpx.AsyncClient(base_url=api.base_url, timeout=120, limits=limits) as senders:

        async def deliver_once() -> httpx.Response:
            answer = await senders.post(PURCHASES, json=body)
            while answer.status_code == 503:
                # More than a busy machine can take at once: a sender tries again.
                await asyncio.sleep(0.1)
                answer = await senders.post(PURCHASES, json=body)
            return answer

        answers = await asyncio.gather(*(deliver_once() for _ in range(1_000)))
    assert {answer.status_code for answer in answers} == {200, 202}
    assert [answer.status_code for answer in answers].count(202) == 1
    assert len({answer.json()["executionId"] for answer in answers}) == 1
    (event_id,) = {answer.json()["eventRecordId"] for answer in answers}
    assert (await read_event(database, UUID(event_id))).times == 1_000
    (delivery,) = await read_deliveries(database, UUID(event_id))
    assert str(delivery.execution_id) == answers[0].json()["executionId"]


async def test_a_linked_event_also_starts_what_listens_to_it(api: httpx.AsyncClient, database: Database) -> None:
    linked, listening = await active_template(api), await active_template(api)
    subscription = await subscribe(database, listening, "product_bought")
    try:
        answer = await ok(await api.post(PURCHASES, json=purchase(await link(api, linked))), 202)
        event_id = UUID(answer["eventRecordId"])
        async with asyncio.timeout(5):
            while (await read_event(database, event_id)).status != EventStatus.HANDLED:
                await asyncio.sleep(0.05)
        targets = {row.target: str(row.execution_id) for row in await read_deliveries(database, event_id)}
        assert targets.keys() == {"link", f"subscription:{subscription.id}"}
        assert targets["link"] == answer["executionId"]
    finally:
        async with database.transaction() as session:
            await session.delete(await session.get(Subscription, subscription.id))


async def test_an_event_without_a_link_is_kept_and_tried_again(api: httpx.AsyncClient, database: Database) -> None:
    body = purchase(f"late-{uuid4().hex}")
    answer = await ok(await api.post(PURCHASES, json=body))
    assert answer["matched"] is False
    event = await read_event(database, UUID(answer["eventRecordId"]))
    assert (event.status, event.payload) == ("UNMATCHED", body)
    await link(api, await active_template(api), entity_id=body["entityId"])
    again = await ok(await api.post(PURCHASES, json=body), 202)
    assert (again["eventRecordId"], again["matched"]) == (answer["eventRecordId"], True)
    assert (await read_event(database, UUID(answer["eventRecordId"]))).times == 2


async def test_a_refused_event_is_kept_with_its_code(api: httpx.AsyncClient, database: Database) -> None:
    template = await create_template(api)
    body = purchase(await link(api, template))
    refused(await api.post(PURCHASES, json=body), 422, "TEMPLATE_NOT_ACTIVE")
    refused(await api.post(PURCHASES, json=body), 422, "TEMPLATE_NOT_ACTIVE")
    async with database.transaction() as session:
        statement = select(TriggerEvent).where(col(TriggerEvent.dedupe_key) == body["eventId"])
        event = (await session.execute(statement)).scalar_one()
    (delivery,) = await read_deliveries(database, event.id)
    assert (event.times, delivery.status, delivery.code, delivery.attempts) == (
        2,
        "REFUSED",
        "TEMPLATE_NOT_ACTIVE",
        2,
    )


async def test_events_are_listed_and_read_with_what_became_of_them(api: httpx.AsyncClient) -> None:
    body = purchase(await link(api, await active_template(api)))
    answer = await ok(await api.post(PURCHASES, json=body), 202)
    listed = await ok(await api.get("/trigger-events", params={"executionId": answer["executionId"]}))
    (event,) = listed["items"]
    summary = f"purchase {body['eventId']} · PRODUCT {body['entityId']}"
    assert (event["id"], event["summary"], event["status"]) == (answer["eventRecordId"], summary, "HANDLED")
    assert "payload" not in event
    read = await ok(await api.get(f"/trigger-events/{event['id']}"))
    assert read["payload"] == body
    (delivery,) = read["deliveries"]
    assert (delivery["target"], delivery["status"], delivery["executionId"]) == (
        "link",
        "STARTED",
        answer["executionId"],
    )
    execution = await ok(await api.get(f"/executions/{answer['executionId']}"))
    assert execution["trigger"] == {
        "source": "product-purchase",
        "summary": summary,
        "eventRecordId": event["id"],
    }


async def test_a_list_of_events_is_narrowed_and_paged(api: httpx.AsyncClient, database: Database) -> None:
    key = f"orders-{uuid4().hex}"
    events = [incoming_event(key) for _ in range(3)]
    await store_events(database, *events)
    first = await ok(await api.get("/trigger-events", params={"triggerKey": key, "limit": 2}))
    rest = await ok(await api.get("/trigger-events", params={"triggerKey": key, "cursor": first["nextCursor"]}))
    listed = [each["id"] for each in first["items"] + rest["items"]]
    assert listed == sorted((str(event.id) for event in events), reverse=True)
    assert rest["nextCursor"] is None
    for narrowed in ({"source": "webhook"}, {"status": "HANDLED"}, {"refused": "true"}, {"entityId": "x"}):
        assert (await ok(await api.get("/trigger-events", params={"triggerKey": key} | narrowed)))["items"] == []
    refused(await api.get(f"/trigger-events/{uuid4()}"), 404, "TRIGGER_EVENT_NOT_FOUND")


async def test_a_refused_event_is_redelivered_once_it_can_be_taken(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    await ok(await api.post(f"/templates/{template['id']}/pause", json={}))
    body = purchase(await link(api, template))
    refused(await api.post(PURCHASES, json=body), 422, "TEMPLATE_PAUSED")
    (event,) = (await ok(await api.get("/trigger-events", params={"entityId": body["entityId"]})))["items"]
    path = f"/trigger-events/{event['id']}/redeliver"
    (delivery,) = (await ok(await api.post(path), 202))["deliveries"]
    assert (delivery["status"], delivery["code"], delivery["attempts"]) == ("REFUSED", "TEMPLATE_PAUSED", 2)
    await ok(await api.post(f"/templates/{template['id']}/resume", json={}))
    (delivery,) = (await ok(await api.post(path, headers={"X-Millrace-Actor": "ann"}), 202))["deliveries"]
    assert (delivery["status"], delivery["code"]) == ("STARTED", None)
    refused(await api.post(path), 409, "NOTHING_TO_DELIVER")
    # Its sender, too, gets what it has come to.
    again = await ok(await api.post(PURCHASES, json=body))
    assert again["executionId"] == delivery["executionId"]
    audited = await ok(await api.get("/audit", params={"entityId": event["id"]}))
    assert [each["result"] for each in audited["items"]] == ["NOTHING_TO_DELIVER", "DONE", "DONE"]


async def test_old_events_go_and_leave_what_they_started(api: httpx.AsyncClient, database: Database) -> None:
    body = purchase(await link(api, await active_template(api)))
    answer = await ok(await api.post(PURCHASES, json=body), 202)
    pending = incoming_event(f"orders-{uuid4().hex}")
    await store_events(database, pending, held=True)
    async with database.transaction() as session:
        await purge_events(session, timedelta(0))
    refused(await api.get(f"/trigger-events/{answer['eventRecordId']}"), 404, "TRIGGER_EVENT_NOT_FOUND")
    assert (await read_event(database, pending.id)).status == EventStatus.PENDING
    # The same event again still gets its execution.
    again = await ok(await api.post(PURCHASES, json=body))
    assert again["executionId"] == answer["executionId"]
