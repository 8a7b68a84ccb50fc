"""Every way in at once, while workers, the API, PostgreSQL and Temporal are killed at random.

At the end each item of each source, each nominal time, each webhook and each row has started one execution, and each
event that is to resume one has been taken by it once.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.errors import AppError
from tests.documents import delay, line, put, wait_signal
from tests.soak.service import Json, Service, a_service, until

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
# How long everything may take to settle once nothing is killed any more.
PATIENCE = 240.0
SEED = int(os.environ.get("SOAK_SEED", "5"))
ITEMS = 80
TIMES = 40
WEBHOOKS = 60
# Each key starts an execution, which then takes so many signals.
KEYS, SIGNALS = 12, 3
KILLED = ("worker", "worker", "api", "api", "postgres", "temporal")

EXECUTIONS = """
    SELECT event.source, template.slug, count(*) AS events, count(DISTINCT event.dedupe_key) AS keys,
        count(DISTINCT delivery.execution_id) AS executions, count(execution.id) AS rows,
        count(*) FILTER (WHERE execution.closed_as = 'COMPLETED') AS completed
    FROM trigger_event AS event
    JOIN trigger_delivery AS delivery ON delivery.event_id = event.id
    JOIN workflow_template AS template ON template.id = delivery.template_id
    LEFT JOIN workflow_execution AS execution ON execution.id = delivery.execution_id
    GROUP BY event.source, template.slug ORDER BY template.slug
"""
OPEN = """
    SELECT (SELECT count(*) FROM trigger_event WHERE status = 'PENDING')
        + (SELECT count(*) FROM workflow_execution WHERE status IN ('CREATED', 'STARTED'))
"""


class Source:
    """An HTTP server whose list of orders grows; each answer shows some again."""

    def __init__(self) -> None:
        self.orders: list[int] = []
        self.url = ""

    async def answer(self, request: Request) -> JSONResponse:
        """The next orders after `since`, less two."""
        since = int(request.query_params.get("since", 0))
        await asyncio.sleep(0.2)
        return JSONResponse({"orders": [{"n": n} for n in self.orders if n > since - 2][:10]})


@asynccontextmanager
async def a_source() -> AsyncIterator[Source]:
    """A source on a free port of loopback."""
    source = Source()
    app = Starlette(routes=[Route("/orders", source.answer)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    source.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/orders"
    yield source
    server.should_exit = True
    await running


async def run() -> dict[str, Any]:
    """The whole of it."""
    async with a_source() as source, a_service() as service:
        await _make_ready(service, source)
        began = time.monotonic()
        killing = asyncio.create_task(_kill(service, began + SECONDS))
        sending = asyncio.create_task(_send_all(service))
        await _grow(service, source)
        await sending
        killed = await killing
        found = await _settled(service)
        seconds = round(time.monotonic() - began, 1)
        _judge(found)
        return {"seconds": seconds, "kills": dict(killed), "executions": sum(one["executions"] for one in found)}


async def _make_ready(service: Service, source: Source) -> None:
    await service.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
    for slug in ("shown", "selected", "timed", "hooked"):
        await service.template(slug, line(put("note", noted=True)))
    await service.template("answered", line(delay("a-moment", "PT1S"), put("note", noted=True)))
    waits = [wait_signal(f"w{n}", signal="more") for n in range(SIGNALS)]
    await service.template("resumed", line(*waits))
    cursor = {"type": "expr", "expr": "__trigger__.cursor"}
    http = {"type": "HTTP", "url": source.url, "query": {"since": cursor}}
    query = "SELECT id FROM orders WHERE :cursor::int IS NULL OR id > :cursor::int - 3 ORDER BY id LIMIT 10"
    sql = {"type": "SQL", "connection": "millrace", "query": query}
    polls: dict[str, Json] = {
        "shown": {"source": http, "items": "__trigger__.response.orders", "id": "__trigger__.item.n"},
        "selected": {"source": sql, "id": "__trigger__.item.id"},
    }
    for (name, poll), field in zip(polls.items(), ("n", "id"), strict=True):
        following = {"cursor": f"__trigger__.items[-1].{field}"}
        body = {"name": name, "spec": _every(2), "poll": {**poll, **following}, "target": {"templateId": name}}
        await service.call("POST", "/schedules", json=body)
    target = {"templateId": "timed", "context": {}}
    timed = {"name": "timed", "spec": _every(2), "overlap": "ALLOW_ALL", "maxExecutions": TIMES, "target": target}
    await service.call("POST", "/schedules", json=timed)
    for slug, response in (("hooked", {"mode": "ASYNC"}), ("answered", {"mode": "SYNC", "timeoutSeconds": 20})):
        body = {"name": slug, "path": slug, "verification": {"scheme": "NONE"}, "template": slug, "response": response}
        await service.call("POST", "/webhook-endpoints", json=body)
    body = {"name": "more", "path": "more", "verification": {"scheme": "NONE"}, "triggerKey": "more"}
    await service.call("POST", "/webhook-endpoints", json=body)
    key = {"type": "expr", "expr": "__trigger__.body.key"}
    subscription = {"mode": "START_OR_RESUME", "signal": "more", "correlationKey": key}
    body = {"templateId": "resumed", "triggerKey": "more", "status": "ACTIVE", **subscription}
    await service.call("POST", "/subscriptions", json=body)


def _every(seconds: int) -> Json:
    return {"intervals": [{"every": seconds}]}


async def _grow(service: Service, source: Source) -> None:
    """Adds to both sources little by little; a row is inserted again until PostgreSQL has it."""
    for n in range(1, ITEMS + 1):
        source.orders.append(n)
        await _insert(service, n)
        await asyncio.sleep(SECONDS * 0.8 / ITEMS)


async def _insert(service: Service, n: int) -> None:
    while True:
        try:
            await service.execute("INSERT INTO orders VALUES ($1) ON CONFLICT DO NOTHING", n)
            return
        except (AppError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await asyncio.sleep(0.3)


async def _send_all(service: Service) -> None:
    async with asyncio.TaskGroup() as group:
        for n in range(WEBHOOKS):
            group.create_task(_send(service, "hooked", f"w-{n}", {"n": n}))
            group.create_task(_send(service, "answered", f"s-{n}", {"n": n}))
            if n < KEYS * (SIGNALS + 1):
                group.create_task(_send(service, "more", f"m-{n}", {"key": f"k-{n % KEYS}"}))
            await asyncio.sleep(SECONDS * 0.8 / WEBHOOKS)


async def _send(service: Service, path: str, key: str, body: Json) -> None:
    """A sender: again and again under its key until it is told that the event was taken."""
    address = str(service.client.base_url).rstrip("/") + f"/hooks/{path}"
    while True:
        try:
            answer = await service.client.post(address, json=body, headers={"Idempotency-Key": key}, timeout=25)
            if answer.is_success:
                return
            assert answer.status_code in (500, 503), f"{answer.status_code} {answer.text}"
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.5)


async def _kill(service: Service, until_then: float) -> Counter[str]:
    # Not for secrets: the same kills in every run.
    chance = random.Random(SEED)
    killed: Counter[str] = Counter()
    while time.monotonic() < until_then:
        await asyncio.sleep(chance.uniform(2, 6))
        # One after the other, in an order that differs, so that each has its turn.
        left = [
            one
            for one in dict.fromkeys(KILLED)
            if killed[one] < (killed.total() // len(KILLED) + 1) * KILLED.count(one)
        ]
        what = chance.choice(left)
        killed[what] += 1
        match what:
            case "worker":
                service.restart_worker()
            case "api":
                service.kill_api()
                await asyncio.sleep(chance.uniform(0, 2))
                await service.start_api()
            case "postgres":
                await service.stop_postgres()
                await asyncio.sleep(chance.uniform(0, 3))
                await service.start_postgres()
            case _:
                await service.stop_temporal()
                await asyncio.sleep(chance.uniform(0, 3))
                await service.start_temporal()
    return killed


async def _settled(service: Service) -> list[Json]:
    """What has come of it, once everything has."""
    wanted = {"shown": ITEMS, "selected": ITEMS, "timed": TIMES}

    async def quiet() -> list[Json] | None:
        found = await service.rows(EXECUTIONS)
        counts = {one["slug"]: one["events"] for one in found}
        if any(counts.get(slug, 0) < count for slug, count in wanted.items()) or await service.value(OPEN):
            return None
        return found

    try:
        await until(quiet, PATIENCE)
    except AssertionError:
        print(await service.rows(EXECUTIONS), await service.value(OPEN))
        raise
    # Nothing comes after.
    await asyncio.sleep(5)
    return await service.rows(EXECUTIONS)


def _judge(found: list[Json]) -> None:
    counts = {one["slug"]: one for one in found}
    once = {"shown": ITEMS, "selected": ITEMS, "timed": TIMES, "hooked": WEBHOOKS, "answered": WEBHOOKS}
    for slug, count in once.items():
        one = counts[slug]
        assert (one["events"], one["keys"], one["executions"], one["completed"]) == (count,) * 4, one
    more = counts["resumed"]
    events = KEYS * (SIGNALS + 1)
    assert (more["events"], more["keys"], more["executions"], more["completed"]) == (events, events, KEYS, events), more
