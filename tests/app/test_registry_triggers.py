"""The trigger registry: what there is to subscribe to, and trying it."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select
from sqlmodel import col

from app.db.event_tables import TriggerEvent
from app.db.session import Database
from app.db.statuses import EventSource, TriggerCategory
from app.registry.trigger_schemas import TriggerCreate
from app.registry.triggers import ensure_trigger
from tests.app.scenes import Json, active_template, create_template, ok, refused
from tests.app.test_changes_audited import audited

ANN = {"X-Millrace-Actor": "ann"}
COLUMNS = {"name": "columns", "displayName": "Columns", "type": "string", "typeOptions": {"multipleValues": True}}


def entry(**fields: Any) -> Json:
    return {
        "key": f"deals_{uuid4().hex}",
        "name": "Changes of deals",
        "category": "database",
        "source": "row-change",
        "properties": [COLUMNS],
        "samplePayload": {"operation": "UPDATE", "after": {"id": 1, "status": "won"}},
        "variables": [{"path": "after.status", "type": "string"}],
        **fields,
    }


async def create(api: httpx.AsyncClient, **fields: Any) -> Json:
    return await ok(await api.post("/registry/triggers", json=entry(**fields), headers=ANN), 201)


async def subscribe(api: httpx.AsyncClient, template: Json, key: str, **fields: Any) -> Json:
    body = {"templateId": template["slug"], "triggerKey": key, **fields}
    return await ok(await api.post("/subscriptions", json=body), 201)


@pytest.mark.parametrize(
    "key", ["service_request_created", "product_bought", "webhook_generic", "schedule_cron", "manual"]
)
async def test_what_millrace_brings_is_there_and_stays_as_it_is(api: httpx.AsyncClient, key: str) -> None:
    found = await ok(await api.get(f"/registry/triggers/{key}"))
    assert found["builtIn"]
    assert found["samplePayload"]
    assert found["variables"]
    refused(await api.patch(f"/registry/triggers/{key}", json={"name": "Mine"}), 409, "TRIGGER_BUILT_IN")
    refused(await api.delete(f"/registry/triggers/{key}"), 409, "TRIGGER_BUILT_IN")


async def test_a_trigger_is_created_read_changed_and_deleted_by_its_key(api: httpx.AsyncClient) -> None:
    made = await create(api)
    path = f"/registry/triggers/{made['key']}"
    assert await ok(await api.get(path)) | {"warnings": []} == made
    assert made["properties"] == [COLUMNS]
    assert not made["builtIn"]
    changed = await ok(await api.patch(path, json={"name": "Deals"}, headers=ANN))
    assert (changed["name"], changed["samplePayload"]) == ("Deals", made["samplePayload"])
    assert (await api.delete(path, headers=ANN)).status_code == 204
    refused(await api.get(path), 404, "TRIGGER_NOT_FOUND")
    deeds = await audited(api, "TRIGGER", made["key"])
    assert [(action, actor) for action, actor, _, _ in deeds] == [
        ("CREATE_TRIGGER", "ann"),
        ("CHANGE_TRIGGER", "ann"),
        ("DELETE_TRIGGER", "ann"),
    ]
    assert deeds[1][2:] == ({"name": "Changes of deals"}, {"name": "Deals"})


async def test_a_key_is_taken_once(api: httpx.AsyncClient) -> None:
    made = await create(api)
    refused(await api.post("/registry/triggers", json=entry(key=made["key"])), 409, "TRIGGER_EXISTS")


@pytest.mark.parametrize("key", ["", " a", "a/b", "a\nb", "x" * 201])
async def test_a_key_that_no_address_can_hold_is_refused(api: httpx.AsyncClient, key: str) -> None:
    refused(await api.post("/registry/triggers", json=entry(key=key)), 422, "REQUEST_INVALID")


async def test_a_broken_form_is_refused_when_a_trigger_is_saved(api: httpx.AsyncClient) -> None:
    broken = [{"name": "x", "displayName": "X", "type": "colour"}]
    refused(await api.post("/registry/triggers", json=entry(properties=broken)), 422, "PROPERTY_FORM_INVALID")
    made = await create(api)
    path = f"/registry/triggers/{made['key']}"
    refused(await api.patch(path, json={"properties": broken}), 422, "PROPERTY_FORM_INVALID")
    narrowing = [{"name": "operations", "displayName": "X", "type": "number"}]
    problem = refused(await api.patch(path, json={"properties": narrowing}), 422, "PROPERTY_FORM_INVALID")
    assert problem["problems"][0]["path"] == "properties[0].type"


async def test_triggers_are_listed_by_source_by_category_and_by_text_page_by_page(api: httpx.AsyncClient) -> None:
    mark = uuid4().hex
    keys = sorted([(await create(api, key=f"{mark} | {letter}"))["key"] for letter in "cab"])
    found = await ok(await api.get("/registry/triggers", params={"text": mark, "limit": 2}))
    assert [one["key"] for one in found["items"]] == keys[:2]
    rest = await ok(
        await api.get("/registry/triggers", params={"text": mark, "limit": 2, "cursor": found["nextCursor"]})
    )
    assert [one["key"] for one in rest["items"]] == keys[2:]
    assert rest["nextCursor"] is None
    by_source = await ok(await api.get("/registry/triggers", params={"source": "schedule"}))
    assert [one["key"] for one in by_source["items"]] == ["schedule_cron"]
    by_category = await ok(await api.get("/registry/triggers", params={"category": "webhook"}))
    assert [one["key"] for one in by_category["items"]] == ["webhook_generic"]
    refused(await api.get("/registry/triggers", params={"source": "smoke-signal"}), 422, "REQUEST_INVALID")
    refused(await api.get("/registry/triggers", params={"cursor": "x"}), 422, "CURSOR_INVALID")


async def test_ensuring_a_trigger_makes_it_once_and_keeps_what_people_changed(
    api: httpx.AsyncClient, database: Database
) -> None:
    wanted = TriggerCreate(
        key=f"t_{uuid4().hex}", name="First", category=TriggerCategory.WEBHOOK, source=EventSource.WEBHOOK
    )
    async with database.transaction() as session:
        _, created = await ensure_trigger(session, wanted)
    assert created
    await ok(await api.patch(f"/registry/triggers/{wanted.key}", json={"name": "Mine"}))
    async with database.transaction() as session:
        trigger, created = await ensure_trigger(session, wanted)
    assert (trigger.name, created) == ("Mine", False)


async def test_a_trigger_with_subscriptions_cannot_be_deleted(api: httpx.AsyncClient) -> None:
    made = await create(api)
    subscription = await subscribe(api, await active_template(api), made["key"])
    path = f"/registry/triggers/{made['key']}"
    refused(await api.delete(path), 409, "TRIGGER_IN_USE")
    assert (await api.delete(f"/subscriptions/{subscription['id']}")).status_code == 204
    assert (await api.delete(path)).status_code == 204


async def test_a_dry_run_tells_which_subscriptions_would_match_and_why_not(api: httpx.AsyncClient) -> None:
    made = await create(api)
    template, draft = await active_template(api), await create_template(api)
    won = {"field": "after.status", "operator": "=", "value": "won"}
    wanting = await subscribe(api, template, made["key"], filter=won, name="{{ after.status }}")
    other = await subscribe(api, template, made["key"], filter=won | {"value": "lost"})
    narrow = await subscribe(api, template, made["key"], properties={"columns": ["amount"]})
    broken = await subscribe(api, template, made["key"], context={"x": "{{ nobody }}"})
    resting = await subscribe(api, template, made["key"], status="INACTIVE")
    drafted = await subscribe(api, draft, made["key"])
    path = f"/registry/triggers/{made['key']}/test"
    answer = await ok(await api.post(path, json={"dryRun": True}))
    assert answer["dryRun"]
    assert "eventRecordId" not in answer
    found = {one["subscriptionId"]: one for one in answer["subscriptions"]}
    assert [found[one["id"]]["delivers"] for one in (wanting, other, narrow, broken, resting, drafted)] == [
        True,
        *[False] * 5,
    ]
    assert found[wanting["id"]]["context"] == made["samplePayload"]
    assert found[wanting["id"]]["name"] == "won"
    assert (found[other["id"]]["filter"]["left"], found[other["id"]]["filter"]["right"]) == ("won", "lost")
    assert found[narrow["id"]]["properties"][0]["property"] == "columns"
    assert found[broken["id"]]["problem"]["code"] == "EXPRESSION_UNDEFINED"
    assert found[resting["id"]]["holds"]
    lost = await ok(await api.post(path, json={"dryRun": True, "payload": {"after": {"status": "lost"}}}))
    assert next(one for one in lost["subscriptions"] if one["subscriptionId"] == other["id"])["delivers"]


async def stored(database: Database, key: str) -> list[TriggerEvent]:
    async with database.transaction() as session:
        statement = select(TriggerEvent).where(col(TriggerEvent.trigger_key) == key).order_by(col(TriggerEvent.id))
        return list((await session.execute(statement)).scalars())


async def test_a_dry_run_stores_nothing(api: httpx.AsyncClient, database: Database) -> None:
    made = await create(api)
    await ok(await api.post(f"/registry/triggers/{made['key']}/test", json={"dryRun": True}))
    assert await stored(database, made["key"]) == []


async def test_a_trigger_is_fired_by_hand_with_its_sample_or_another_payload(
    api: httpx.AsyncClient, database: Database
) -> None:
    made = await create(api)
    path = f"/registry/triggers/{made['key']}/test"
    first = await ok(await api.post(path, json={}, headers=ANN), 202)
    await ok(await api.post(path, json={"payload": None}), 202)
    sampled, given = await stored(database, made["key"])
    assert str(sampled.id) == first["eventRecordId"]
    assert (sampled.source, sampled.payload) == ("manual", made["samplePayload"])
    assert sampled.summary == f"test of {made['key']} by ann"
    assert given.payload is None
    assert ("FIRE_TRIGGER", "ann") in [deed[:2] for deed in await audited(api, "TRIGGER", made["key"])]


async def test_firing_again_with_the_same_key_is_the_same_event(api: httpx.AsyncClient, database: Database) -> None:
    made = await create(api)
    path = f"/registry/triggers/{made['key']}/test"
    headers = {"Idempotency-Key": "once"}
    first = await ok(await api.post(path, json={"payload": {"a": 1}}, headers=headers), 202)
    assert await ok(await api.post(path, json={"payload": {"a": 1}}, headers=headers), 202) == first
    refused(await api.post(path, json={"payload": {"a": 2}}, headers=headers), 409, "IDEMPOTENCY_CONFLICT")
    assert [event.payload for event in await stored(database, made["key"])] == [{"a": 1}]


async def test_firing_again_with_the_same_key_is_the_same_event_whatever_has_become_of_the_trigger(
    api: httpx.AsyncClient, database: Database
) -> None:
    made = await create(api)
    path, headers = f"/registry/triggers/{made['key']}", ANN | {"Idempotency-Key": "once"}
    first = await ok(await api.post(f"{path}/test", json={}, headers=headers), 202)
    await ok(await api.patch(path, json={"samplePayload": {"another": 1}}))
    assert await ok(await api.post(f"{path}/test", json={}, headers=headers), 202) == first
    assert (await api.delete(path)).status_code == 204
    assert await ok(await api.post(f"{path}/test", json={}, headers=headers), 202) == first
    again = await api.post(f"{path}/test", json={"payload": 1}, headers=headers)
    assert refused(again, 409, "IDEMPOTENCY_CONFLICT")["eventRecordId"] == first["eventRecordId"]
    assert len(await stored(database, made["key"])) == 1


async def test_a_trigger_that_is_not_there_cannot_be_fired(api: httpx.AsyncClient) -> None:
    refused(await api.post("/registry/triggers/nobody/test", json={}), 404, "TRIGGER_NOT_FOUND")
    refused(await api.post("/registry/triggers/nobody/test", json={"dryRun": True}), 404, "TRIGGER_NOT_FOUND")


async def test_what_is_fired_by_hand_starts_the_template_that_listens(api: httpx.AsyncClient) -> None:
    made, template = await create(api), await active_template(api)
    won = {"field": "after.status", "operator": "=", "value": "won"}
    await subscribe(api, template, made["key"], filter=won, name="{{ after.status }}")
    path = f"/registry/triggers/{made['key']}/test"
    await ok(await api.post(path, json={"payload": {"after": {"status": "lost"}}}), 202)
    await ok(await api.post(path, json={}), 202)
    found: list[Json] = []
    for _ in range(100):
        found = (await ok(await api.get("/executions", params={"template": template["slug"]})))["items"]
        if found:
            break
        await asyncio.sleep(0.1)
    assert [one["name"] for one in found] == ["won"]
