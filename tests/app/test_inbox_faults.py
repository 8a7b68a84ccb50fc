"""What goes wrong with one event, and must not with the others; and events that come again."""

from uuid import uuid4

import httpx

from app.db.session import Database
from app.db.statuses import DeliveryStatus, EventStatus
from app.inbox.delivering import deliver
from app.inbox.storing import Incoming
from app.settings import Settings
from app.temporal import Temporal
from tests.app.inbox_scenes import incoming_event, read_deliveries, read_event, store_events, subscribe
from tests.app.scenes import active_template, ok


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
    (refused,) = await deliver(database, temporal, settings, [event.id])
    assert refused.status is DeliveryStatus.REFUSED
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
