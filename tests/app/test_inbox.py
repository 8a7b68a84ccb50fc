"""The inbox: what is stored of events, and what comes of them."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select
from sqlmodel import col
from temporalio.converter import DataConverter

from app.db.event_tables import TriggerDelivery
from app.db.session import Database
from app.db.statuses import DeliveryStatus, EventStatus, SubscriptionMode
from app.inbox.delivering import deliver, deliver_due
from app.inbox.queries import lock_due
from app.inbox.settling import Delivered
from app.inbox.storing import Incoming, store
from app.settings import Settings
from app.temporal import Temporal
from tests.app.inbox_scenes import incoming_event, read_deliveries, read_event, read_execution, store_events, subscribe
from tests.app.scenes import active_template, create_template, ok
from tests.app.tiny_workflow import running_worker

PURCHASES = "/triggers/product-purchases"


Deliver = Any


@pytest.fixture
def delivering(database: Database, temporal: Temporal, settings: Settings) -> Deliver:
    """Stores events and delivers them at once."""

    async def store_and_deliver(*incoming: Incoming) -> list[Delivered]:
        kept = await store_events(database, *incoming, held=True)
        return await deliver(database, temporal, settings, [each.id for each in kept])

    return store_and_deliver


async def test_an_event_is_stored_once_for_each_key_of_its_source(database: Database) -> None:
    first = incoming_event()
    again = incoming_event(dedupe_key=first.dedupe_key)
    other = incoming_event(dedupe_key=first.dedupe_key, payload={"after": {"id": 43}})
    (stored,) = await store_events(database, first)
    assert (stored.id, stored.repeated, stored.conflicting) == (first.id, False, False)
    (repeated,) = await store_events(database, again)
    assert (repeated.id, repeated.repeated, repeated.conflicting) == (first.id, True, False)
    (conflicting,) = await store_events(database, other)
    assert (conflicting.id, conflicting.repeated, conflicting.conflicting) == (first.id, True, True)
    event = await read_event(database, first.id)
    assert (event.times, event.payload, event.summary) == (3, {"after": {"id": 42}}, "orders · UPDATE · 42")


async def test_two_events_of_one_call_with_one_key_are_one(database: Database) -> None:
    first = incoming_event()
    stored = await store_events(database, first, incoming_event(dedupe_key=first.dedupe_key), incoming_event())
    assert [each.id == first.id for each in stored] == [True, True, False]


async def test_what_postgresql_cannot_hold_is_replaced(database: Database) -> None:
    (stored,) = await store_events(database, incoming_event(payload={"a\0": ["\ud800"]}, headers={"x": "\0"}))
    event = await read_event(database, stored.id)
    assert (event.payload, event.headers) == ({"a\ufffd": ["\ufffd"]}, {"x": "\ufffd"})


async def test_an_event_that_nobody_wants_is_kept_unmatched(database: Database, delivering: Deliver) -> None:
    event = incoming_event("nobody_listens")
    assert await delivering(event) == []
    assert (await read_event(database, event.id)).status == EventStatus.UNMATCHED


async def test_an_event_starts_every_subscription_that_matches(
    api: httpx.AsyncClient, database: Database, delivering: Deliver
) -> None:
    key = f"orders-{uuid4().hex}"
    first, second, third = [await active_template(api) for _ in range(3)]
    won = {"combinator": "AND", "conditions": [{"variable": "after.status", "operator": "equals", "value": "won"}]}
    lost = {"combinator": "AND", "conditions": [{"variable": "after.status", "operator": "equals", "value": "lost"}]}
    context = {"order": {"type": "expr", "expr": {"src": "__trigger__.after.id"}}}
    name = {"type": "expr", "expr": {"src": "'Order ' & __trigger__.after.id"}}
    plain = await subscribe(database, first, key)
    mapped = await subscribe(database, second, key, filter=won, context=context, name=name)
    await subscribe(database, third, key, filter=lost)
    await subscribe(database, third, key, status="INACTIVE")

    payload = {"operation": "UPDATE", "after": {"id": 42, "status": "won"}}
    event = incoming_event(key, payload=payload)
    delivered = await delivering(event)
    assert {(each.target, each.status) for each in delivered} == {
        (f"subscription:{plain.id}", DeliveryStatus.STARTED),
        (f"subscription:{mapped.id}", DeliveryStatus.STARTED),
    }
    rows = {each.target: await read_execution(database, each.execution_id) for each in delivered}
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
    assert (await read_event(database, event.id)).status == EventStatus.HANDLED
    # Delivered again, it starts nothing.
    again = await delivering(incoming_event(key, payload=payload, dedupe_key=event.dedupe_key))
    assert {each.execution_id for each in again} == {row.id for row in rows.values()}


async def test_one_subscription_that_is_refused_hinders_no_other(
    api: httpx.AsyncClient, database: Database, delivering: Deliver
) -> None:
    key = f"orders-{uuid4().hex}"
    draft, template = await create_template(api), await active_template(api)
    await subscribe(database, draft, key)
    await subscribe(database, template, key, context={"type": "expr", "expr": {"src": "$error('no')"}})
    good = await subscribe(database, template, key)
    event = incoming_event(key)
    delivered = await delivering(event)
    assert {each.target: each.status for each in delivered if each.error is None} == {
        f"subscription:{good.id}": DeliveryStatus.STARTED
    }
    rows = await read_deliveries(database, event.id)
    assert sorted(row.code or "" for row in rows) == ["", "EXPRESSION_FAILED", "TEMPLATE_NOT_ACTIVE"]
    assert (await read_event(database, event.id)).status == EventStatus.HANDLED


async def test_many_dispatchers_start_each_event_once(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    key = f"orders-{uuid4().hex}"
    await subscribe(database, await active_template(api), key)
    events = [incoming_event(key) for _ in range(60)]
    await store_events(database, *events)
    # The API's own dispatcher is at it too.
    await asyncio.gather(*(deliver_due(database, temporal, settings) for _ in range(4)))
    async with asyncio.timeout(20):
        for event in events:
            while (await read_event(database, event.id)).status == EventStatus.PENDING:
                await asyncio.sleep(0.05)
    async with database.transaction() as session:
        statement = select(col(TriggerDelivery.execution_id)).where(
            col(TriggerDelivery.event_id).in_([event.id for event in events])
        )
        started = (await session.execute(statement)).scalars().all()
    assert len({*started} - {None}) == len(started) == 60


async def test_a_flood_of_one_trigger_leaves_each_other_its_share(database: Database) -> None:
    flood, *others = (f"{what}-{uuid4().hex}" for what in ("flood", "a", "b"))
    incoming = [incoming_event(key) for key in (*[flood] * 300, *others)]
    async with database.driver() as connection, connection.transaction():
        # Nobody else sees them before the end of the transaction.
        await store(connection, incoming)
        taken = Counter(event.trigger_key for event in await lock_due(connection, 60))
    assert [taken[other] for other in others] == [1, 1]
    assert 1 < taken[flood] < 58
    assert taken.total() <= 60


async def test_the_apis_dispatcher_delivers_what_is_stored(api: httpx.AsyncClient, database: Database) -> None:
    key = f"orders-{uuid4().hex}"
    await subscribe(database, await active_template(api), key)
    event = incoming_event(key)
    await store_events(database, event)
    async with asyncio.timeout(5):
        while (await read_event(database, event.id)).status != EventStatus.HANDLED:
            await asyncio.sleep(0.05)
    (delivery,) = await read_deliveries(database, event.id)
    async with asyncio.timeout(5):
        while (await read_execution(database, delivery.execution_id)).status != "STARTED":
            await asyncio.sleep(0.05)


async def test_an_event_that_names_a_template_starts_it(
    api: httpx.AsyncClient, database: Database, delivering: Deliver
) -> None:
    template = await active_template(api)
    payload = {"context": {"a": 1}, "name": "Nightly", "triggerTime": "2026-01-01T00:00:00Z"}
    (delivered,) = await delivering(incoming_event(template_id=UUID(template["id"]), payload=payload))
    row = await read_execution(database, delivered.execution_id)
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
    subscription = await subscribe(
        database,
        template,
        key,
        mode=SubscriptionMode.START_OR_RESUME,
        signal="go",
        correlation_key={"type": "expr", "expr": {"src": "__trigger__.order"}},
        context={"do": "wait"},
    )
    async with running_worker(temporal_address, task_queue, converter):
        first, second, other = [incoming_event(key, payload={"order": order}) for order in ("a", "a", "b")]
        started = await delivering(first)
        assert [each.status for each in started] == [DeliveryStatus.STARTED]
        resumed = await delivering(second)
        assert [(each.status, each.execution_id) for each in resumed] == [
            (DeliveryStatus.SIGNALLED, started[0].execution_id)
        ]
        assert (await delivering(other))[0].execution_id != started[0].execution_id
        # Once it has ended, the key starts another.
        await ok(await api.post(f"/executions/{started[0].execution_id}/terminate", json={}))
        (anew,) = await delivering(incoming_event(key, payload={"order": "a"}))
        assert (anew.status, anew.execution_id == started[0].execution_id) == (DeliveryStatus.STARTED, False)
        # Two at once with a new key: one starts, and the other is handed to it.
        pair = [incoming_event(key, payload={"order": "c"}) for _ in range(2)]
        both = await delivering(*pair)
        assert {each.status for each in both} == {DeliveryStatus.STARTED, DeliveryStatus.SIGNALLED}
        assert len({each.execution_id for each in both}) == 1
    assert subscription.signal == "go"


async def test_what_a_subscription_starts_is_found_under_the_key_that_it_names(
    api: httpx.AsyncClient,
    database: Database,
    temporal_address: str,
    task_queue: str,
    converter: DataConverter,
    delivering: Deliver,
) -> None:
    placed, paid = f"placed-{uuid4().hex}", f"paid-{uuid4().hex}"
    template = await active_template(api)
    keyed = {"correlation_key": {"type": "expr", "expr": {"src": "__trigger__.order"}}}
    await subscribe(database, template, placed, context={"do": "wait"}, **keyed)
    await subscribe(database, template, paid, mode=SubscriptionMode.RESUME, signal="go", **keyed)
    async with running_worker(temporal_address, task_queue, converter):
        (started,) = await delivering(incoming_event(placed, payload={"order": "a"}))
        (resumed,) = await delivering(incoming_event(paid, payload={"order": "a"}))
        assert (resumed.status, resumed.execution_id) == (DeliveryStatus.SIGNALLED, started.execution_id)
        (elsewhere,) = await delivering(incoming_event(paid, payload={"order": "b"}))
        assert elsewhere.status is DeliveryStatus.PENDING
        # Each event of a subscription that starts is an execution of its own, whatever runs under the key.
        (another,) = await delivering(incoming_event(placed, payload={"order": "a"}))
        assert (another.status, another.execution_id != started.execution_id) == (DeliveryStatus.STARTED, True)
    trigger = (await read_execution(database, started.execution_id)).trigger
    assert trigger is not None
    assert trigger["correlationKey"] == "a"
    (keyless,) = await delivering(incoming_event(placed, payload={}))
    assert keyless.status is DeliveryStatus.REFUSED


async def test_an_event_that_resumes_waits_for_its_execution_and_gives_up_in_the_end(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    key = f"orders-{uuid4().hex}"
    await subscribe(
        database,
        await active_template(api),
        key,
        mode=SubscriptionMode.RESUME,
        signal="go",
        correlation_key={"type": "expr", "expr": {"src": "__trigger__.order"}},
    )
    event = incoming_event(key, payload={"order": "a"})
    await store_events(database, event, held=True)
    (waiting,) = await deliver(database, temporal, settings, [event.id])
    assert (waiting.status, waiting.error and waiting.error.code) == (DeliveryStatus.PENDING, "NO_ONE_WAITS")
    assert (await read_event(database, event.id)).status == EventStatus.PENDING
    async with asyncio.timeout(10):
        (delivery,) = await read_deliveries(database, event.id)
        while delivery.attempts < 2:
            await asyncio.sleep(0.1)
            (delivery,) = await read_deliveries(database, event.id)
    impatient = settings.model_copy(update={"inbox": settings.inbox.model_copy(update={"resume_within": 0})})
    async with asyncio.timeout(10):
        while delivery.status == "PENDING":
            await asyncio.sleep(0.1)
            await deliver(database, temporal, impatient, [event.id])
            (delivery,) = await read_deliveries(database, event.id)
    assert (delivery.status, delivery.code) == ("REFUSED", "NO_ONE_WAITS")
    assert (await read_event(database, event.id)).status == EventStatus.HANDLED
