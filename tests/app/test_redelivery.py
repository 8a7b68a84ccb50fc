"""What is tried when an event is delivered again: what was refused, and nothing that came to want it later."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import httpx
import pytest

from app.db.session import Database
from app.db.statuses import EventStatus
from app.inbox.delivering import deliver
from app.settings import Settings
from app.temporal import Temporal
from tests.app.inbox_scenes import incoming_event as incoming
from tests.app.inbox_scenes import read_deliveries, read_event, read_execution, store_events
from tests.app.inbox_scenes import subscribe as subscribe_to
from tests.app.scenes import Json, active_template, create_template, link, ok, publish, purchase, refused

PURCHASES = "/triggers/product-purchases"

Again = Callable[[httpx.AsyncClient, Json, str], Awaitable[None]]


async def by_hand(api: httpx.AsyncClient, _: Json, event_id: str) -> None:
    await ok(await api.post(f"/trigger-events/{event_id}/redeliver"), 202)


async def by_its_sender(api: httpx.AsyncClient, body: Json, _: str) -> None:
    await ok(await api.post(PURCHASES, json=body), 202)


async def subscribe(api: httpx.AsyncClient) -> Json:
    body = {"templateId": (await active_template(api))["id"], "triggerKey": "product_bought"}
    return await ok(await api.post("/subscriptions", json=body), 201)


async def refused_purchase(api: httpx.AsyncClient, template: Json) -> tuple[Json, str]:
    body = purchase(await link(api, template))
    problem = refused(await api.post(PURCHASES, json=body), 422, "TEMPLATE_NOT_ACTIVE")
    return body, problem["eventRecordId"]


@pytest.mark.parametrize("again", [by_hand, by_its_sender])
async def test_a_subscription_that_is_made_later_hears_nothing_of_what_was_refused(
    api: httpx.AsyncClient, database: Database, again: Again
) -> None:
    template = await create_template(api)
    version = await publish(api, template)
    body, event_id = await refused_purchase(api, template)
    later = await subscribe(api)
    try:
        await ok(await api.post(f"/versions/{version['id']}/activate"))
        await again(api, body, event_id)
    finally:
        await api.delete(f"/subscriptions/{later['id']}")
    assert [(row.target, row.status) for row in await read_deliveries(database, UUID(event_id))] == [
        ("link", "STARTED")
    ]


async def test_a_subscription_that_is_made_later_hears_nothing_of_what_is_queued(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    await ok(await api.patch(f"/templates/{template['id']}", json={"whenPaused": "QUEUE"}))
    await ok(await api.post(f"/templates/{template['id']}/pause"))
    queued = await ok(await api.post(PURCHASES, json=purchase(await link(api, template))), 202)
    later = await subscribe(api)
    try:
        await ok(await api.post(f"/templates/{template['id']}/resume"))
        async with asyncio.timeout(10):
            while (await read_event(database, UUID(queued["eventRecordId"]))).status != EventStatus.HANDLED:
                await asyncio.sleep(0.05)
    finally:
        await api.delete(f"/subscriptions/{later['id']}")
    assert [(row.target, row.status) for row in await read_deliveries(database, UUID(queued["eventRecordId"]))] == [
        ("link", "STARTED")
    ]


async def test_an_event_that_nothing_wanted_is_matched_anew(api: httpx.AsyncClient, database: Database) -> None:
    nobodys = await ok(await api.post(PURCHASES, json=purchase("nobody has linked it")))
    later = await subscribe(api)
    try:
        await ok(await api.post(f"/trigger-events/{nobodys['eventRecordId']}/redeliver"), 202)
    finally:
        await api.delete(f"/subscriptions/{later['id']}")
    (delivery,) = await read_deliveries(database, UUID(nobodys["eventRecordId"]))
    assert (delivery.target, delivery.status) == (f"subscription:{later['id']}", "STARTED")


async def test_a_corrected_event_is_another_one_and_matched_anew(api: httpx.AsyncClient, database: Database) -> None:
    body, event_id = await refused_purchase(api, await create_template(api))
    later = await subscribe(api)
    try:
        corrected = await api.post(PURCHASES, json=body | {"context": {"other": 1}})
        assert refused(corrected, 422, "TEMPLATE_NOT_ACTIVE")["eventRecordId"] == event_id
    finally:
        await api.delete(f"/subscriptions/{later['id']}")
    found = {row.target: row.status for row in await read_deliveries(database, UUID(event_id))}
    assert found == {"link": "REFUSED", f"subscription:{later['id']}": "STARTED"}


@pytest.mark.parametrize("again", [by_hand, by_its_sender])
async def test_what_was_refused_goes_to_the_template_that_is_linked_now(
    api: httpx.AsyncClient, database: Database, again: Again
) -> None:
    body, event_id = await refused_purchase(api, await create_template(api))
    template = await active_template(api)
    await api.delete(f"/links/PRODUCT/{body['entityId']}")
    await link(api, template, entity_id=body["entityId"])
    await again(api, body, event_id)
    (delivery,) = await read_deliveries(database, UUID(event_id))
    assert (delivery.target, str(delivery.template_id)) == ("link", template["id"])
    assert str((await read_execution(database, delivery.execution_id)).template_id) == template["id"]


async def test_of_several_subscriptions_only_those_that_refused_are_tried_again(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    first, second = await active_template(api), await create_template(api)
    await subscribe_to(database, first, "many_db_change")
    await subscribe_to(database, second, "many_db_change")
    (stored,) = await store_events(database, incoming("many_db_change"), held=True)
    await deliver(database, temporal, settings, [stored.id])
    started = {str(row.template_id): row.execution_id for row in await read_deliveries(database, stored.id)}
    assert started[second["id"]] is None
    await subscribe_to(database, await active_template(api), "many_db_change")
    version = await publish(api, second)
    await ok(await api.post(f"/versions/{version['id']}/activate"))
    await ok(await api.post(f"/trigger-events/{stored.id}/redeliver"), 202)
    found = {str(row.template_id): row.execution_id for row in await read_deliveries(database, stored.id)}
    assert found.keys() == {first["id"], second["id"]}
    assert found[first["id"]] == started[first["id"]]
    assert found[second["id"]] is not None
