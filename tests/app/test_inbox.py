"""The inbox: what is stored of events, and what comes of them."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select
from sqlmodel import col
from temporalio.converter import DataConverter

from app.db.event_tables import Subscription, TriggerDefinition, TriggerDelivery, TriggerEvent
from app.db.session import Database
from app.db.statuses import DeliveryStatus, EventSource, EventStatus, SubscriptionMode
from app.db.tables import WorkflowExecution
from app.inbox.delivering import deliver, deliver_due
from app.inbox.settling import Delivered
from app.inbox.storing import Incoming, Stored, store
from app.settings import Settings
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, create_template, link, ok, purchase, refused
from tests.app.tiny_workflow import running_worker

PURCHASES = "/triggers/product-purchases"


def _incoming(trigger_key: str = "orders_db_change", **fields: Any) -> Incoming:
    fields = {"dedupe_key": uuid4().hex, "summary": "orders · UPDATE · 42", "payload": {"after": {"id": 42}}} | fields
    return Incoming(source=EventSource.ROW_CHANGE, trigger_key=trigger_key, **fields)


async def _stored(database: Database, *incoming: Incoming, held: bool = False) -> list[Stored]:
    async with database.driver() as connection, connection.transaction():
        return await store(connection, incoming, held=timedelta(minutes=1) if held else timedelta(0))


async def _event(database: Database, event_id: UUID) -> TriggerEvent:
    async with database.transaction() as session:
        event = await session.get(TriggerEvent, event_id)
    assert event is not None
    return event


async def _deliveries(database: Database, event_id: UUID) -> list[TriggerDelivery]:
    async with database.transaction() as session:
        statement = select(TriggerDelivery).where(col(TriggerDelivery.event_id) == event_id)
        return [*(await session.execute(statement.order_by(col(TriggerDelivery.id)))).scalars()]


async def _execution(database: Database, execution_id: UUID | None) -> WorkflowExecution:
    async with database.transaction() as session:
        row = await session.get(WorkflowExecution, execution_id)
    assert row is not None
    return row


async def _subscribe(database: Database, template: Json, trigger_key: str, **fields: Any) -> Subscription:
    async with database.transaction() as session:
        statement = select(TriggerDefinition).where(col(TriggerDefinition.key) == trigger_key)
        trigger = (await session.execute(statement)).scalar_one_or_none()
        if trigger is None:
            trigger = TriggerDefinition(key=trigger_key, name=trigger_key, category="database", source="row-change")
            session.add(trigger)
            await session.flush()
        subscription = Subscription(
            template_id=UUID(template["id"]), trigger_id=trigger.id, trigger_key=trigger_key, **fields
        )
        session.add(subscription)
    return subscription


Deliver = Any


@pytest.fixture
def delivering(database: Database, temporal: Temporal, settings: Settings) -> Deliver:
    """Stores events and delivers them at once."""

    async def store_and_deliver(*incoming: Incoming) -> list[Delivered]:
        stored = await _stored(database, *incoming, held=True)
        return await deliver(database, temporal, settings, [each.id for each in stored])

    return store_and_deliver


async def test_an_event_is_stored_once_for_each_key_of_its_source(database: Database) -> None:
    first = _incoming()
    again = _incoming(dedupe_key=first.dedupe_key)
    other = _incoming(dedupe_key=first.dedupe_key, payload={"after": {"id": 43}})
    (stored,) = await _stored(database, first)
    assert (stored.id, stored.repeated, stored.conflicting) == (first.id, False, False)
    (repeated,) = await _stored(database, again)
    assert (repeated.id, repeated.repeated, repeated.conflicting) == (first.id, True, False)
    (conflicting,) = await _stored(database, other)
    assert (conflicting.id, conflicting.repeated, conflicting.conflicting) == (first.id, True, True)
    event = await _event(database, first.id)
    assert (event.times, event.payload, event.summary) == (3, {"after": {"id": 42}}, "orders · UPDATE · 42")


async def test_two_events_of_one_call_with_one_key_are_one(database: Database) -> None:
    first = _incoming()
    stored = await _stored(database, first, _incoming(dedupe_key=first.dedupe_key), _incoming())
    assert [each.id == first.id for each in stored] == [True, True, False]


async def test_what_postgresql_cannot_hold_is_replaced(database: Database) -> None:
    (stored,) = await _stored(database, _incoming(payload={"a\0": ["\ud800"]}, headers={"x": "\0"}))
    event = await _event(database, stored.id)
    assert (event.payload, event.headers) == ({"a\ufffd": ["\ufffd"]}, {"x": "\ufffd"})


async def test_an_event_that_nobody_wants_is_kept_unmatched(database: Database, delivering: Deliver) -> None:
    event = _incoming("nobody_listens")
    assert await delivering(event) == []
    assert (await _event(database, event.id)).status == EventStatus.UNMATCHED


async def test_an_event_starts_every_subscription_that_matches(
    api: httpx.AsyncClient, database: Database, delivering: Deliver
) -> None:
    key = f"orders-{uuid4().hex}"
    first, second, third = [await active_template(api) for _ in range(3)]
    won = {"combinator": "AND", "conditions": [{"variable": "after.status", "operator": "equals", "value": "won"}]}
    lost = {"combinator": "AND", "conditions": [{"variable": "after.status", "operator": "equals", "value": "lost"}]}
    context = {"order": {"type": "expr", "expr": {"src": "__trigger__.after.id"}}}
    name = {"type": "expr", "expr": {"src": "'Order ' & __trigger__.after.id"}}
    plain = await _subscribe(database, first, key)
    mapped = await _subscribe(database, second, key, filter=won, context=context, name=name)
    await _subscribe(database, third, key, filter=lost)
    await _subscribe(database, third, key, status="INACTIVE")

    payload = {"operation": "UPDATE", "after": {"id": 42, "status": "won"}}
    event = _incoming(key, payload=payload)
    delivered = await delivering(event)
    assert {(each.target, each.status) for each in delivered} == {
        (f"subscription:{plain.id}", DeliveryStatus.STARTED),
        (f"subscription:{mapped.id}", DeliveryStatus.STARTED),
    }
    rows = {each.target: await _execution(database, each.execution_id) for each in delivered}
    assert rows[f"subscription:{plain.id}"].context == payload
    row = rows[f"subscription:{mapped.id}"]
    assert (row.context, row.name, row.status) == ({"order": 42}, "Order 42", "STARTED")
    assert row.trigger == {
        "source": "row-change",
        "eventId": event.dedupe_key,
        "eventRecordId": str(event.id),
        "summary": event.summary,
        "triggerKey": key,
        "subscriptionId": str(mapped.id),
    }
    assert (await _event(database, event.id)).status == EventStatus.HANDLED
    # Delivered again, it starts nothing.
    again = await delivering(_incoming(key, payload=payload, dedupe_key=event.dedupe_key))
    assert {each.execution_id for each in again} == {row.id for row in rows.values()}


async def test_one_subscription_that_is_refused_hinders_no_other(
    api: httpx.AsyncClient, database: Database, delivering: Deliver
) -> None:
    key = f"orders-{uuid4().hex}"
    draft, template = await create_template(api), await active_template(api)
    await _subscribe(database, draft, key)
    await _subscribe(database, template, key, context={"type": "expr", "expr": {"src": "$error('no')"}})
    good = await _subscribe(database, template, key)
    event = _incoming(key)
    delivered = await delivering(event)
    assert {each.target: each.status for each in delivered if each.error is None} == {
        f"subscription:{good.id}": DeliveryStatus.STARTED
    }
    rows = await _deliveries(database, event.id)
    assert sorted(row.code or "" for row in rows) == ["", "EXPRESSION_FAILED", "TEMPLATE_NOT_ACTIVE"]
    assert (await _event(database, event.id)).status == EventStatus.HANDLED


async def test_many_dispatchers_start_each_event_once(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    key = f"orders-{uuid4().hex}"
    await _subscribe(database, await active_template(api), key)
    events = [_incoming(key) for _ in range(60)]
    await _stored(database, *events)
    # The API's own dispatcher is at it too.
    await asyncio.gather(*(deliver_due(database, temporal, settings) for _ in range(4)))
    async with asyncio.timeout(20):
        for event in events:
            while (await _event(database, event.id)).status == EventStatus.PENDING:
                await asyncio.sleep(0.05)
    async with database.transaction() as session:
        statement = select(col(TriggerDelivery.execution_id)).where(
            col(TriggerDelivery.event_id).in_([event.id for event in events])
        )
        started = (await session.execute(statement)).scalars().all()
    assert len({*started} - {None}) == len(started) == 60


async def test_the_apis_dispatcher_delivers_what_is_stored(api: httpx.AsyncClient, database: Database) -> None:
    key = f"orders-{uuid4().hex}"
    await _subscribe(database, await active_template(api), key)
    event = _incoming(key)
    await _stored(database, event)
    async with asyncio.timeout(5):
        while (await _event(database, event.id)).status != EventStatus.HANDLED:
            await asyncio.sleep(0.05)
    (delivery,) = await _deliveries(database, event.id)
    async with asyncio.timeout(5):
        while (await _execution(database, delivery.execution_id)).status != "STARTED":
            await asyncio.sleep(0.05)


async def test_an_event_that_names_a_template_starts_it(
    api: httpx.AsyncClient, database: Database, delivering: Deliver
) -> None:
    template = await active_template(api)
    payload = {"context": {"a": 1}, "name": "Nightly", "triggerTime": "2026-01-01T00:00:00Z"}
    (delivered,) = await delivering(_incoming(template_id=UUID(template["id"]), payload=payload))
    row = await _execution(database, delivered.execution_id)
    assert (row.context, row.name) == ({"a": 1}, "Nightly")
    assert (row.trigger or {})["triggerTime"] == "2026-01-01T00:00:00Z"


async def test_an_event_resumes_the_execution_that_was_started_under_its_key(
    api: httpx.AsyncClient,
    database: Database,
    temporal: Temporal,
    settings: Settings,
    temporal_address: str,
    task_queue: str,
    converter: DataConverter,
    delivering: Deliver,
) -> None:
    key = f"orders-{uuid4().hex}"
    template = await active_template(api)
    subscription = await _subscribe(
        database,
        template,
        key,
        mode=SubscriptionMode.START_OR_RESUME,
        signal="go",
        correlation_key={"type": "expr", "expr": {"src": "__trigger__.order"}},
        context={"do": "wait"},
    )
    async with running_worker(temporal_address, task_queue, converter):
        first, second, other = [_incoming(key, payload={"order": order}) for order in ("a", "a", "b")]
        started = await delivering(first)
        assert [each.status for each in started] == [DeliveryStatus.STARTED]
        resumed = await delivering(second)
        assert [(each.status, each.execution_id) for each in resumed] == [
            (DeliveryStatus.SIGNALLED, started[0].execution_id)
        ]
        assert (await delivering(other))[0].execution_id != started[0].execution_id
        # Once it has ended, the key starts another.
        await ok(await api.post(f"/executions/{started[0].execution_id}/terminate", json={}))
        (anew,) = await delivering(_incoming(key, payload={"order": "a"}))
        assert (anew.status, anew.execution_id == started[0].execution_id) == (DeliveryStatus.STARTED, False)
        # Two at once with a new key: one starts, and the other is handed to it.
        pair = [_incoming(key, payload={"order": "c"}) for _ in range(2)]
        both = await delivering(*pair)
        assert {each.status for each in both} == {DeliveryStatus.STARTED, DeliveryStatus.SIGNALLED}
        assert len({each.execution_id for each in both}) == 1
    assert subscription.signal == "go"


async def test_an_event_that_resumes_waits_for_its_execution_and_gives_up_in_the_end(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    key = f"orders-{uuid4().hex}"
    await _subscribe(
        database,
        await active_template(api),
        key,
        mode=SubscriptionMode.RESUME,
        signal="go",
        correlation_key={"type": "expr", "expr": {"src": "__trigger__.order"}},
    )
    event = _incoming(key, payload={"order": "a"})
    await _stored(database, event, held=True)
    (waiting,) = await deliver(database, temporal, settings, [event.id])
    assert (waiting.status, waiting.error and waiting.error.code) == (DeliveryStatus.PENDING, "NO_ONE_WAITS")
    assert (await _event(database, event.id)).status == EventStatus.PENDING
    async with asyncio.timeout(10):
        (delivery,) = await _deliveries(database, event.id)
        while delivery.attempts < 2:
            await asyncio.sleep(0.1)
            (delivery,) = await _deliveries(database, event.id)
    impatient = settings.model_copy(update={"inbox": settings.inbox.model_copy(update={"resume_within": 0})})
    async with asyncio.timeout(10):
        while delivery.status == "PENDING":
            await asyncio.sleep(0.1)
            await deliver(database, temporal, impatient, [event.id])
            (delivery,) = await _deliveries(database, event.id)
    assert (delivery.status, delivery.code) == ("REFUSED", "NO_ONE_WAITS")
    assert (await _event(database, event.id)).status == EventStatus.HANDLED


async def test_many_deliveries_of_one_event_start_one_execution(api: httpx.AsyncClient, database: Database) -> None:
    body = purchase(await link(api, await active_template(api)))
    answers = await asyncio.gather(*(api.post(PURCHASES, json=body) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200, 202}
    assert len({answer.json()["executionId"] for answer in answers}) == 1
    (event_id,) = {answer.json()["eventRecordId"] for answer in answers}
    assert (await _event(database, UUID(event_id))).times == 100


async def test_a_linked_event_also_starts_what_listens_to_it(api: httpx.AsyncClient, database: Database) -> None:
    linked, listening = await active_template(api), await active_template(api)
    subscription = await _subscribe(database, listening, "product_bought")
    try:
        answer = await ok(await api.post(PURCHASES, json=purchase(await link(api, linked))), 202)
        event_id = UUID(answer["eventRecordId"])
        async with asyncio.timeout(5):
            while (await _event(database, event_id)).status != EventStatus.HANDLED:
                await asyncio.sleep(0.05)
        targets = {row.target: str(row.execution_id) for row in await _deliveries(database, event_id)}
        assert targets.keys() == {"link", f"subscription:{subscription.id}"}
        assert targets["link"] == answer["executionId"]
    finally:
        async with database.transaction() as session:
            await session.delete(await session.get(Subscription, subscription.id))


async def test_an_event_without_a_link_is_kept_and_tried_again(api: httpx.AsyncClient, database: Database) -> None:
    body = purchase(f"late-{uuid4().hex}")
    answer = await ok(await api.post(PURCHASES, json=body))
    assert answer["matched"] is False
    event = await _event(database, UUID(answer["eventRecordId"]))
    assert (event.status, event.payload) == ("UNMATCHED", body)
    await link(api, await active_template(api), entity_id=body["entityId"])
    again = await ok(await api.post(PURCHASES, json=body), 202)
    assert (again["eventRecordId"], again["matched"]) == (answer["eventRecordId"], True)
    assert (await _event(database, UUID(answer["eventRecordId"]))).times == 2


async def test_a_refused_event_is_kept_with_its_code(api: httpx.AsyncClient, database: Database) -> None:
    template = await create_template(api)
    body = purchase(await link(api, template))
    refused(await api.post(PURCHASES, json=body), 422, "TEMPLATE_NOT_ACTIVE")
    refused(await api.post(PURCHASES, json=body), 422, "TEMPLATE_NOT_ACTIVE")
    async with database.transaction() as session:
        statement = select(TriggerEvent).where(col(TriggerEvent.dedupe_key) == body["eventId"])
        event = (await session.execute(statement)).scalar_one()
    (delivery,) = await _deliveries(database, event.id)
    assert (event.times, delivery.status, delivery.code, delivery.attempts) == (
        2,
        "REFUSED",
        "TEMPLATE_NOT_ACTIVE",
        2,
    )
