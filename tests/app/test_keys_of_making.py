"""Requests that make something, repeated with their key: made once, answered alike, refused for anything else."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from app.audit.repeating import Asked, find_made
from app.db.session import Database
from app.errors import Conflict
from tests.app.clockwork import HOURLY, create_schedule, events_of, until_events
from tests.app.scenes import Json, active_template, link, ok, refused

ANN = {"X-Millrace-Actor": "ann"}


def keyed(key: str | None = None) -> dict[str, str]:
    return ANN | {"Idempotency-Key": key or uuid4().hex}


def _schedule() -> Json:
    return {"name": f"s-{uuid4().hex}", "spec": HOURLY, "target": {"triggerKey": "test.tick"}}


def _template() -> Json:
    return {"name": f"Orders {uuid4().hex}"}


def _backfill() -> Json:
    return {"name": uuid4().hex, "entityType": "PRODUCT"}


def _trigger() -> Json:
    return {"key": f"t_{uuid4().hex}", "name": "Deals", "category": "external", "source": "manual"}


def _endpoint() -> Json:
    path = f"keys-{uuid4().hex}"
    return {"name": "In", "path": path, "verification": {"scheme": "TOKEN"}, "secret": "a secret of ours"}


def _watched() -> Json:
    return {"connection": "elsewhere", "table": f"t_{uuid4().hex}"[:30], "method": "POSTED"}


MADE: list[Any] = [
    pytest.param("/templates", _template, {"name": "Other"}, id="template"),
    pytest.param("/schedules", _schedule, {"note": "another"}, id="schedule"),
    pytest.param("/backfills", _backfill, {"rate": 2}, id="backfill"),
    pytest.param("/registry/triggers", _trigger, {"name": "Other"}, id="trigger"),
    pytest.param("/webhook-endpoints", _endpoint, {"name": "Other"}, id="webhook"),
    pytest.param("/change-sources", _watched, {"wholeBefore": False}, id="watched table"),
]


async def _made(api: httpx.AsyncClient, path: str, answer: Json) -> list[Json]:
    page = await ok(await api.get("/audit", params={"entityId": answer.get("id") or answer["key"], "limit": 100}))
    items: list[Json] = page["items"]
    return items


@pytest.mark.parametrize(("path", "body", "other"), MADE)
async def test_what_is_made_under_a_key_is_made_once(api: httpx.AsyncClient, path: str, body: Any, other: Json) -> None:
    wanted, headers = body(), keyed()
    first = await ok(await api.post(path, json=wanted, headers=headers), 201)
    assert await ok(await api.post(path, json=wanted, headers=headers), 201) == first
    refused(await api.post(path, json=wanted | other, headers=headers), 409, "IDEMPOTENCY_CONFLICT")
    assert len(await _made(api, path, first)) == 1
    # Another key makes another one, where there may be two.
    again = await api.post(path, json=wanted, headers=keyed())
    assert again.status_code in (201, 409)
    assert again.status_code == 409 or again.json()["id"] != first["id"]


@pytest.mark.parametrize(("path", "body", "other"), MADE)
async def test_of_many_that_come_at_once_under_a_key_one_makes_it(
    api: httpx.AsyncClient, path: str, body: Any, other: Json
) -> None:
    wanted, headers = body(), keyed()
    answers = await asyncio.gather(*(api.post(path, json=wanted, headers=headers) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    found = [answer.json() for answer in answers]
    assert all(one == found[0] for one in found)
    assert len(await _made(api, path, found[0])) == 1


async def test_a_subscription_is_made_once_under_its_key(api: httpx.AsyncClient) -> None:
    template, trigger = await active_template(api), _trigger()
    await ok(await api.post("/registry/triggers", json=trigger), 201)
    body, headers = {"templateId": template["slug"], "triggerKey": trigger["key"]}, keyed()
    answers = await asyncio.gather(*(api.post("/subscriptions", json=body, headers=headers) for _ in range(8)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    listed = await ok(await api.get("/subscriptions", params={"triggerKey": trigger["key"]}))
    assert len(listed["items"]) == 1
    refused(
        await api.post("/subscriptions", json=body | {"description": "x"}, headers=headers), 409, "IDEMPOTENCY_CONFLICT"
    )


async def test_a_refused_request_does_not_use_its_key_up(api: httpx.AsyncClient) -> None:
    headers, body = keyed(), _schedule()
    refused(await api.post("/schedules", json=body | {"target": {"templateId": "none"}}, headers=headers), 404,
            "TEMPLATE_NOT_FOUND")  # fmt: skip
    await ok(await api.post("/schedules", json=body, headers=headers), 201)


async def test_what_was_made_under_a_key_and_is_gone_is_not_made_again(api: httpx.AsyncClient) -> None:
    headers, body = keyed(), _schedule()
    made = await ok(await api.post("/schedules", json=body, headers=headers), 201)
    assert (await api.delete(f"/schedules/{made['id']}")).status_code == 204
    refused(await api.post("/schedules", json=body, headers=headers), 404, "SCHEDULE_NOT_FOUND")


async def test_one_key_serves_for_things_of_different_kinds(api: httpx.AsyncClient) -> None:
    headers = keyed()
    await ok(await api.post("/schedules", json=_schedule(), headers=headers), 201)
    await ok(await api.post("/backfills", json=_backfill(), headers=headers), 201)


async def test_a_schedule_is_run_once_under_a_key_though_it_is_asked_seconds_apart(
    api: httpx.AsyncClient, database: Database, working: None
) -> None:
    schedule, headers = await create_schedule(api, HOURLY), keyed()
    path = f"/schedules/{schedule['id']}/run"
    first = await ok(await api.post(path, headers=headers), 202)
    await until_events(database, schedule, 1)
    await asyncio.sleep(1.1)
    assert await ok(await api.post(path, headers=headers), 202) == first
    refused(await api.post(path, json={"overlap": "ALLOW_ALL"}, headers=headers), 409, "IDEMPOTENCY_CONFLICT")
    await asyncio.sleep(1.5)
    assert len(await events_of(database, schedule)) == 1
    await ok(await api.post(path, headers=keyed()), 202)
    await until_events(database, schedule, 2)


async def test_a_secret_is_rotated_once_under_a_key_and_the_one_before_stays_good(
    api: httpx.AsyncClient, database: Database
) -> None:
    endpoint = await ok(await api.post("/webhook-endpoints", json=_endpoint()), 201)
    path, headers = f"/webhook-endpoints/{endpoint['id']}/rotate-secret", keyed()
    rotated = await ok(await api.post(path, json={"secret": "the next one"}, headers=headers))
    assert await ok(await api.post(path, json={"secret": "the next one"}, headers=headers)) == rotated
    refused(await api.post(path, json={"secret": "yet another"}, headers=headers), 409, "IDEMPOTENCY_CONFLICT")
    hook = f"/hooks/{endpoint['path']}"
    for secret, status in (("a secret of ours", 202), ("the next one", 202), ("yet another", 401)):
        answer = await api.post(hook, json={"n": secret}, headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == status, secret


async def test_no_secret_of_a_request_is_kept_with_its_key(api: httpx.AsyncClient, database: Database) -> None:
    body = _endpoint() | {"secret": "only-we-know", "requiredHeaders": {"X-Shared": "between-us"}}
    made = await ok(await api.post("/webhook-endpoints", json=body, headers=keyed()), 201)
    other = body | {"secret": "somebody-else-knows"}
    key = keyed()
    await ok(
        await api.post(f"/webhook-endpoints/{made['id']}/rotate-secret", json={"secret": "rolled over"}, headers=key)
    )
    refused(await api.post("/webhook-endpoints", json=other, headers=keyed()), 409, "PATH_TAKEN")
    async with database.driver() as connection:
        kept = await connection.fetch("SELECT request::text FROM audit_event WHERE entity_id = $1", made["id"])
    assert len(kept) == 2
    assert not any(
        word in (row["request"] or "") for row in kept for word in ("only-we-know", "between-us", "rolled over")
    )


async def test_an_event_is_redelivered_once_under_a_key(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    entity = await link(api, template)
    await ok(await api.post(f"/templates/{template['id']}/pause"))
    live = {"eventId": uuid4().hex, "entityId": entity, "context": {}}
    answer = await api.post("/triggers/product-purchases", json=live)
    assert answer.status_code == 422
    [event] = (await ok(await api.get("/trigger-events", params={"entityId": entity})))["items"]
    await ok(await api.post(f"/templates/{template['id']}/resume"))
    path, headers = f"/trigger-events/{event['id']}/redeliver", keyed()
    first = await ok(await api.post(path, headers=headers), 202)
    again = await ok(await api.post(path, headers=headers), 202)
    assert again["deliveries"][0]["executionId"] == first["deliveries"][0]["executionId"]
    refused(await api.post(path, headers=keyed()), 409, "NOTHING_TO_DELIVER")


async def test_what_is_being_made_for_long_is_asked_for_again_later(database: Database) -> None:
    asked = Asked("CREATE_SCHEDULE", "SCHEDULE", "ann", uuid4().hex, {})
    async with database.transaction() as first:
        await find_made(first, asked)
        with pytest.raises(Conflict) as refusal:
            async with database.transaction() as second:
                await find_made(second, asked)
        assert refusal.value.code == "IDEMPOTENCY_IN_PROGRESS"
    async with database.transaction() as third:
        assert await find_made(third, asked) is None
        # It is for keys alone that nobody waits longer.
        assert (await third.execute(text("SHOW lock_timeout"))).scalar_one() == "0"
