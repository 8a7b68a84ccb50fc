"""Ticks that are asked for by hand: each is one, however close they come."""

import asyncio
from datetime import datetime
from typing import Any

import httpx
import pytest

from app.db.session import Database
from tests.app.clockwork import EVERY_SECOND, NEVER, create_schedule, events_of, until, until_events
from tests.app.scenes import Json, active_template, ok, refused

EVERY_OTHER_SECOND = {"intervals": [{"every": "PT2S"}]}


async def _ask(api: httpx.AsyncClient, schedule: Json, key: str | None = None, **fields: Any) -> Json:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await ok(await api.post(f"/schedules/{schedule['id']}/run", json=fields, headers=headers), 202)


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("overlap", ["ALLOW_ALL", "BUFFER_ALL"])
async def test_those_that_are_asked_for_at_once_are_a_tick_and_a_start_each(
    api: httpx.AsyncClient, database: Database, overlap: str
) -> None:
    template = await active_template(api)
    schedule = await create_schedule(api, NEVER, {"templateId": template["id"], "context": {}}, overlap=overlap)
    await asyncio.gather(*(_ask(api, schedule, key) for key in (None, None, "first", "second", "first", "second")))
    await until_events(database, schedule, 4)

    async def started() -> set[str] | None:
        runs = (await ok(await api.get(f"/schedules/{schedule['id']}/runs")))["items"]
        found = {execution for run in runs for execution in run["executionIds"]}
        return found if len(found) >= 4 else None

    assert len(await until(started)) == 4
    await asyncio.sleep(1)
    assert len(await events_of(database, schedule)) == 4


@pytest.mark.usefixtures("working")
async def test_one_that_is_asked_for_when_the_clock_comes_is_one_beside_it(
    api: httpx.AsyncClient, database: Database
) -> None:
    schedule = await create_schedule(api, EVERY_OTHER_SECOND, overlap="ALLOW_ALL", maxExecutions=3)
    asked = [await _ask(api, schedule) for _ in range(4)]
    await until_events(database, schedule, 3 + len(asked))
    await asyncio.sleep(2.5)
    found = [datetime.fromisoformat(one["payload"]["triggerTime"]) for one in await events_of(database, schedule)]
    assert [time.second % 2 for time in found].count(1) == len(asked)
    assert len(found) == 3 + len(asked)


@pytest.mark.usefixtures("working")
async def test_one_that_comes_every_second_anyway_is_not_asked_for_until_it_is_paused(
    api: httpx.AsyncClient, database: Database
) -> None:
    schedule = await create_schedule(api, EVERY_SECOND, overlap="ALLOW_ALL")
    refused(await api.post(f"/schedules/{schedule['id']}/run"), 409, "SCHEDULE_CROWDED")
    await ok(await api.post(f"/schedules/{schedule['id']}/pause"))
    await asyncio.sleep(1.5)
    before = len(await events_of(database, schedule))
    await asyncio.gather(*(_ask(api, schedule) for _ in range(2)))
    await until_events(database, schedule, before + 2)
