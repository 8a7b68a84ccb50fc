"""What goes wrong with one event, and must not with the others; and events that come again."""

import asyncio
from contextlib import suppress
from uuid import UUID, uuid4

import httpx
from temporalio.converter import DataConverter

from app.db.session import Database
from app.db.statuses import DeliveryStatus, EventStatus, SubscriptionMode
from app.executions import updates
from app.inbox.delivering import deliver, deliver_due
from app.inbox.queries import lock_pending
from app.inbox.settling import settle
from app.inbox.storing import Incoming
from app.run_contracts import SignalDelivery
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.inbox_scenes import incoming_event, read_deliveries, read_event, store_events, subscribe
from tests.app.scenes import active_template, ok, refused
from tests.app.tiny_workflow import running_worker
from tests.conftest import MakeDatabase


def again(event: Incoming) -> Incoming:
    """The same event, as its sender sends it once more."""
    return incoming_event(event.trigger_key, dedupe_key=event.dedupe_key, payload=event.payload)


async def test_an_event_that_nobody_wanted_is_looked_at_anew_when_it_comes_again(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    event = incoming_event(f"orders-{uuid4().hex}")
    await store_events(database, event, held=True)
    assert await deliver(database, temporal, settings, [event.id]) == []
    await subscribe(database, await active_template(api), event.trigger_key)
    await store_events(database, again(event), held=True)
    (delivered,) = await deliver(database, temporal, settings, [event.id])
    assert delivered.status is DeliveryStatus.STARTED


async def test_what_was_refused_is_tried_again_when_the_event_comes_again(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    template = await active_template(api)
    event = incoming_event(f"orders-{uuid4().hex}")
    await subscribe(database, template, event.trigger_key)
    await ok(await api.post(f"/templates/{template['id']}/pause"))
    await store_events(database, event, held=True)
    (before,) = await deliver(database, temporal, settings, [event.id])
    assert before.status is DeliveryStatus.REFUSED
    await ok(await api.post(f"/templates/{template['id']}/resume"))
    await store_events(database, again(event), held=True)
    (delivered,) = await deliver(database, temporal, settings, [event.id])
    assert delivered.status is DeliveryStatus.STARTED
    assert (await read_event(database, event.id)).status == EventStatus.HANDLED


async def test_another_content_under_a_refused_key_has_nothing_tried_again(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    template = await active_template(api)
    event = incoming_event(f"orders-{uuid4().hex}")
    await subscribe(database, template, event.trigger_key)
    await ok(await api.post(f"/templates/{template['id']}/pause"))
    await store_events(database, event, held=True)
    await deliver(database, temporal, settings, [event.id])
    await ok(await api.post(f"/templates/{template['id']}/resume"))
    other = incoming_event(event.trigger_key, dedupe_key=event.dedupe_key, payload={"after": {"id": 7}})
    (stored,) = await store_events(database, other, held=True)
    assert stored.conflicting
    assert await deliver(database, temporal, settings, [event.id])
    (delivery,) = await read_deliveries(database, event.id)
    assert delivery.status == DeliveryStatus.REFUSED


async def test_a_run_that_does_not_answer_holds_up_no_other_event(api: httpx.AsyncClient, database: Database) -> None:
    # No worker is there, so no run answers.
    template = await active_template(api)
    key, other = f"orders-{uuid4().hex}", incoming_event(f"orders-{uuid4().hex}")
    await subscribe(database, template, other.trigger_key)
    await subscribe(
        database,
        template,
        key,
        mode=SubscriptionMode.START_OR_RESUME,
        signal="go",
        correlation_key={"type": "expr", "expr": {"src": "__trigger__.order"}},
    )
    heard, unheard = incoming_event(key, payload={"order": "a"}), incoming_event(key, payload={"order": "a"})
    await store_events(database, heard)
    async with asyncio.timeout(5):
        while len(await read_deliveries(database, heard.id)) == 0:
            await asyncio.sleep(0.05)
    await store_events(database, unheard)
    async with asyncio.timeout(5):
        while len(await read_deliveries(database, unheard.id)) == 0:
            await asyncio.sleep(0.05)
    await store_events(database, other)
    async with asyncio.timeout(4):
        while (await read_event(database, other.id)).status == EventStatus.PENDING:
            await asyncio.sleep(0.05)
    (delivery,) = await read_deliveries(database, unheard.id)
    assert delivery.status == DeliveryStatus.PENDING


async def test_an_event_that_nobody_foresaw_holds_up_no_other(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    template = UUID((await active_template(api))["id"])
    odd = incoming_event("", template_id=template, payload={"context": {}, "name": 5})
    plain = incoming_event("", template_id=template, payload={"context": {}})
    await store_events(database, odd, plain)
    with suppress(Exception):
        await deliver_due(database, temporal, settings)
    async with asyncio.timeout(5):
        while (await read_event(database, plain.id)).status == EventStatus.PENDING:
            await asyncio.sleep(0.05)
    assert (await read_event(database, odd.id)).status == EventStatus.PENDING


async def test_a_database_whose_clock_is_ahead_is_believed(
    make_database: MakeDatabase, serve: Serve, settings: Settings, temporal: Temporal
) -> None:
    url = await make_database()
    ahead = Database(url)
    try:
        async with ahead.driver() as connection:
            name = await connection.fetchval("SELECT current_database()")
            await connection.execute(
                "CREATE SCHEMA ahead; CREATE FUNCTION ahead.now() RETURNS timestamptz LANGUAGE sql "
                "AS 'SELECT pg_catalog.now() + interval ''5 seconds''';"
                f"ALTER DATABASE {name} SET search_path = ahead, pg_catalog, public"
            )
        await ahead.close()
        ahead = Database(url)
        api = await serve(settings, ahead, temporal)
        template = await active_template(api)
        await ok(await api.put("/links/PRODUCT/ahead", json={"templateId": template["id"]}), 201)
        await ok(await api.post(f"/templates/{template['id']}/pause"))
        purchase = {"eventId": "e", "entityId": "ahead", "context": {}}
        refused(await api.post("/triggers/product-purchases", json=purchase), 422, "TEMPLATE_PAUSED")
        await ok(await api.post(f"/templates/{template['id']}/resume"))
        started = await ok(await api.post("/triggers/product-purchases", json=purchase), 202)
        assert started["executionId"]
    finally:
        await ahead.close()


async def test_a_signal_whose_answer_was_lost_starts_nothing_after_its_execution_has_ended(
    api: httpx.AsyncClient,
    database: Database,
    temporal: Temporal,
    settings: Settings,
    temporal_address: str,
    task_queue: str,
    converter: DataConverter,
) -> None:
    key = f"orders-{uuid4().hex}"
    await subscribe(
        database,
        await active_template(api),
        key,
        mode=SubscriptionMode.START_OR_RESUME,
        signal="go",
        correlation_key={"type": "expr", "expr": {"src": "__trigger__.order"}},
        context={"do": "wait"},
    )
    first, second, third = [incoming_event(key, payload={"order": "a"}) for _ in range(3)]
    async with running_worker(temporal_address, task_queue, converter):
        await store_events(database, first, held=True)
        (started,) = await deliver(database, temporal, settings, [first.id])
        await store_events(database, second, third, held=True)
        async with database.driver() as connection, connection.transaction():
            settled = await settle(connection, settings, await lock_pending(connection, [second.id, third.id]))
        handovers = {each.delivery_id: each for each in settled.handovers}
        (taken,) = [each.id for each in settled.delivered if each.event_id == second.id]
        # The signal is taken, and whoever sent it dies before it can say so.
        signal = SignalDelivery(name="go", payload={}, correlation_key="a")
        assert started.execution_id == handovers[taken].execution_id
        await updates.deliver_signal(temporal, handovers[taken].execution_id, signal, f"delivery:{taken}")
        await ok(await api.post(f"/executions/{started.execution_id}/terminate", json={}))
        (resumed,) = await deliver(database, temporal, settings, [second.id])
        assert (resumed.status, resumed.execution_id) == (DeliveryStatus.SIGNALLED, started.execution_id)
        # The one that was not taken starts an execution of its own, as soon as the other is known to have ended.
        (left,) = await deliver(database, temporal, settings, [third.id])
        assert (left.status, left.error and left.error.code) == (DeliveryStatus.PENDING, "EXECUTION_ENDED")
        (anew,) = await deliver(database, temporal, settings, [third.id])
        assert (anew.status, anew.execution_id == started.execution_id) == (DeliveryStatus.STARTED, False)
