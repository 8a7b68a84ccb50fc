"""How many executions of a template may be started, and be open, at once: at most so many, whoever comes together."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from app.db.session import Database
from app.inbox.delivering import deliver
from app.settings import Settings
from app.temporal import Temporal
from tests.app.inbox_scenes import incoming_event, read_deliveries, store_events, subscribe
from tests.app.scenes import Json, active_template, create_template, link, ok, purchase, refused

PURCHASES = "/triggers/product-purchases"
END = """
    UPDATE workflow_execution SET status = 'COMPLETED', closed_as = 'COMPLETED', ended_at = now()
    WHERE id IN (
        SELECT id FROM workflow_execution WHERE template_id = :id AND status IN ('CREATED', 'STARTED')
        ORDER BY id LIMIT :count
    )
"""
AGE = "UPDATE workflow_execution SET created_at = created_at - interval '61 seconds' WHERE template_id = :id"
CONTEXTS = "SELECT context FROM workflow_execution WHERE template_id = :id ORDER BY id"
OPEN = "SELECT count(*) FROM workflow_execution WHERE template_id = :id AND status IN ('CREATED', 'STARTED')"


async def _sql(database: Database, statement: str, template: Json, **more: Any) -> Any:
    async with database.transaction() as session:
        return await session.execute(text(statement), {"id": UUID(template["id"]), **more})


async def _contexts(database: Database, template: Json) -> list[Json]:
    return list((await _sql(database, CONTEXTS, template)).scalars())


async def _open(database: Database, template: Json) -> int:
    return int((await _sql(database, OPEN, template)).scalar_one())


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.05)


async def _execute(api: httpx.AsyncClient, template: Json, number: int = 0, **headers: str) -> httpx.Response:
    body = {"context": {"number": number}}
    return await api.post(f"/templates/{template['id']}/execute", json=body, headers=headers)


async def test_limits_are_set_shown_and_taken_away(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    assert template["limits"] is None
    path = f"/templates/{template['id']}"
    changed = await ok(await api.patch(path, json={"limits": {"openExecutions": 5}}))
    assert changed["limits"] == {"startsPerMinute": None, "openExecutions": 5, "whenFull": "REFUSE"}
    changed = await ok(await api.patch(path, json={"limits": {"startsPerMinute": 6, "whenFull": "QUEUE"}}))
    assert changed["limits"] == {"startsPerMinute": 6, "openExecutions": None, "whenFull": "QUEUE"}
    assert (await ok(await api.patch(path, json={"limits": None})))["limits"] is None


@pytest.mark.parametrize(
    "limits", [{}, {"openExecutions": 0}, {"whenFull": "QUEUE"}, {"openExecutions": 1, "whenFull": "LATER"}, {"x": 1}]
)
async def test_limits_that_limit_nothing_or_everything_are_refused(api: httpx.AsyncClient, limits: Json) -> None:
    template = await create_template(api)
    refused(await api.patch(f"/templates/{template['id']}", json={"limits": limits}), 422, "REQUEST_INVALID")


async def test_of_200_starts_that_come_at_once_exactly_as_many_are_taken_as_may_be_open(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api, limits={"openExecutions": 5})
    answers = await asyncio.gather(*[_execute(api, template, number) for number in range(200)])
    # On a slow machine some have waited too long for a connection: 503, and nothing was stored.
    assert {each.status_code for each in answers} <= {202, 429, 503}
    assert [each.status_code for each in answers].count(202) == 5
    assert await _open(database, template) == 5
    problem = refused(await _execute(api, template), 429, "CONCURRENCY_LIMITED")
    assert "5 open execution(s)" in problem["detail"]
    assert int((await _execute(api, template)).headers["Retry-After"]) >= 1
    # What ends makes room.
    await _sql(database, END, template, count=1)
    await ok(await _execute(api, template), 202)
    refused(await _execute(api, template), 429, "CONCURRENCY_LIMITED")


async def test_events_that_are_delivered_together_by_many_take_no_more_places_than_there_are(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, settings: Settings
) -> None:
    key = f"orders-{uuid4().hex}"
    template = await active_template(api, limits={"openExecutions": 5})
    other = await active_template(api, limits={"openExecutions": 3})
    await subscribe(database, template, key)
    await subscribe(database, other, key)
    events = [incoming_event(key) for _ in range(80)]
    stored = [each.id for each in await store_events(database, *events, held=True)]
    parts = [stored[start::8] for start in range(8)]
    by_hand = [_execute(api, template, number) for number in range(40)]
    await asyncio.gather(*[deliver(database, temporal, settings, part) for part in parts], *by_hand)
    assert (await _open(database, template), await _open(database, other)) == (5, 3)
    codes = [each.code for one in stored for each in await read_deliveries(database, one) if each.status == "REFUSED"]
    assert len(codes) >= 80 * 2 - 8
    assert set(codes) == {"CONCURRENCY_LIMITED"}


async def test_no_more_are_started_in_a_minute_than_may_be(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api, limits={"startsPerMinute": 3, "openExecutions": 50})
    answers = await asyncio.gather(*[_execute(api, template) for _ in range(10)])
    assert sorted(each.status_code for each in answers) == [202] * 3 + [429] * 7
    # That they have ended changes nothing.
    await _sql(database, END, template, count=3)
    answer = await _execute(api, template)
    refused(answer, 429, "RATE_LIMITED")
    assert 50 <= int(answer.headers["Retry-After"]) <= 60
    await _sql(database, AGE, template)
    await ok(await _execute(api, template), 202)


async def test_an_event_that_found_no_room_is_kept_and_taken_when_it_comes_again(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api, limits={"openExecutions": 1})
    entity_id = await link(api, template)
    first, second = purchase(entity_id), purchase(entity_id)
    started = await ok(await api.post(PURCHASES, json=first), 202)
    for _ in range(2):
        answer = await api.post(PURCHASES, json=second)
        refused(answer, 429, "CONCURRENCY_LIMITED")
        assert "Retry-After" in answer.headers
    page = await ok(await api.get(f"/trigger-events?entityType=PRODUCT&entityId={entity_id}&refused=true"))
    assert [each["code"] for each in page["items"][0]["deliveries"]] == ["CONCURRENCY_LIMITED"]
    # A repetition of what was started needs no room.
    assert (await ok(await api.post(PURCHASES, json=first)))["executionId"] == started["executionId"]
    await _sql(database, END, template, count=1)
    await ok(await api.post(PURCHASES, json=second), 202)
    assert len(await _contexts(database, template)) == 2


async def test_a_start_by_hand_that_is_repeated_needs_no_room(api: httpx.AsyncClient) -> None:
    template = await active_template(api, limits={"openExecutions": 1})
    first = await ok(await _execute(api, template, **{"Idempotency-Key": "k"}), 202)
    again = await ok(await _execute(api, template, **{"Idempotency-Key": "k"}))
    assert again["executionId"] == first["executionId"]


async def test_what_is_queued_is_started_in_order_as_others_end(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api, limits={"openExecutions": 3, "whenFull": "QUEUE"})
    answers = [await ok(await _execute(api, template, number), 202) for number in range(20)]
    assert [each["status"] for each in answers] == ["STARTED"] * 3 + ["QUEUED"] * 17
    assert answers[3]["problem"]["code"] == "CONCURRENCY_LIMITED"
    seen = 3
    while seen < 20:
        assert await _open(database, template) <= 3
        await _sql(database, END, template, count=2)
        seen = min(seen + 2, 20)

        async def started(count: int = seen) -> bool:
            return len(await _contexts(database, template)) >= count

        await _until(started)
    assert [each["number"] for each in await _contexts(database, template)] == list(range(20))


async def test_who_comes_later_does_not_get_the_place_of_who_waits(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api, limits={"openExecutions": 1, "whenFull": "QUEUE"})
    for number in range(2):
        await ok(await _execute(api, template, number), 202)
    await _sql(database, END, template, count=1)
    # Whether or not the dispatcher has looked by now.
    assert (await ok(await _execute(api, template, 2), 202))["status"] == "QUEUED"

    async def started() -> bool:
        return len(await _contexts(database, template)) == 2

    await _until(started)
    assert [each["number"] for each in await _contexts(database, template)] == [0, 1]


async def test_what_a_rate_has_queued_is_started_when_the_minute_is_over(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api, limits={"startsPerMinute": 2, "whenFull": "QUEUE"})
    answers = [await ok(await _execute(api, template, number), 202) for number in range(4)]
    assert [each.get("problem", {}).get("code") for each in answers][2:] == ["RATE_LIMITED"] * 2
    await _sql(database, AGE, template)

    async def started() -> bool:
        return len(await _contexts(database, template)) == 4

    await _until(started)


async def test_what_is_queued_is_started_when_the_limit_is_taken_away(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api, limits={"openExecutions": 1, "whenFull": "QUEUE"})
    for number in range(30):
        await ok(await _execute(api, template, number), 202)
    await ok(await api.patch(f"/templates/{template['id']}", json={"limits": None}))

    async def started() -> bool:
        return len(await _contexts(database, template)) == 30

    await _until(started)
