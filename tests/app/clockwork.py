"""What tests of schedules and polls need: schedules, and their events."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx

from app.db.session import Database
from tests.app.scenes import Json, ok

HOURLY = {"cron": ["0 * * * *"]}
NEVER = {"cron": ["0 0 1 1 *"]}
EVERY_SECOND = {"intervals": [{"every": "PT1S"}]}

Condition = Callable[[], Awaitable[Any]]


async def create_schedule(api: httpx.AsyncClient, spec: Json, target: Json | None = None, **fields: Any) -> Json:
    body = {"name": f"s-{uuid4().hex}", "spec": spec, "target": target or {"triggerKey": "test.tick"}, **fields}
    return await ok(await api.post("/schedules", json=body), 201)


async def events_of(database: Database, schedule: Json) -> list[Json]:
    statement = "SELECT * FROM trigger_event WHERE dedupe_key LIKE $1 ORDER BY dedupe_key"
    async with database.driver() as connection:
        return [dict(row) for row in await connection.fetch(statement, f"{schedule['id']}:%")]


async def until(condition: Condition, within: float = 20.0) -> Any:
    end = asyncio.get_running_loop().time() + within
    while asyncio.get_running_loop().time() < end:
        found = await condition()
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("it has not come about in time")


async def until_events(database: Database, schedule: Json, count: int) -> list[Json]:
    async def enough() -> list[Json] | None:
        found = await events_of(database, schedule)
        return found if len(found) >= count else None

    found: list[Json] = await until(enough)
    return found
