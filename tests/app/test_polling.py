"""Polls: a source is asked by the clock, and each of its items is an event once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import SecretStr
from temporalio.client import Client

from app.db.session import Database
from app.settings import HttpActionSettings, PollingSettings, Settings
from tests.app.conftest import Serve, served
from tests.app.scenes import Json, active_template, ok, refused
from worker import build_worker

NEVER = {"cron": ["0 0 1 1 *"]}


class Shop:
    """The other side: what it has, and what it was asked."""

    def __init__(self) -> None:
        self.orders: list[Json] = []
        self.asked: list[Request] = []
        self.status = 200
        self.url = ""

    async def list(self, request: Request) -> JSONResponse:
        self.asked.append(request)
        since = int(request.query_params.get("since", 0))
        found = [order for order in self.orders if order["n"] > since]
        return JSONResponse({"orders": found}, self.status)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    subject = Shop()
    app = FastAPI()
    app.add_api_route("/api/v1/orders", subject.list)
    async with served(app) as client:
        subject.url = f"{client.base_url}orders"
        yield subject


@pytest.fixture(scope="module")
def settings(settings: Settings, database_url: str) -> Settings:
    """What the module's API and worker are configured with."""
    given = settings.model_dump()
    given["database"]["url"] = database_url
    return Settings(
        **given
        | {
            "connections": {
                "shop": SecretStr(database_url.replace("postgresql+asyncpg", "postgresql")),
            },
            "polling": PollingSettings(secrets={"token": SecretStr("Bearer hunter2")}, max_items=50, timeout=5),
            "http_action": HttpActionSettings(allowed_private_hosts=("127.0.0.1",)),
        }
    )


def _orders(shop: Shop, **fields: Any) -> Json:
    source = {"type": "HTTP", "url": shop.url, **fields.pop("source", {})}
    return {
        "source": source,
        "items": "__trigger__.response.orders",
        "id": "__trigger__.item.n",
        **fields,
    }


async def _create(api: httpx.AsyncClient, poll: Json, target: Json | None = None, **fields: Any) -> Json:
    body = {"name": f"p-{uuid4().hex}", "spec": NEVER, "poll": poll, "target": target or {"triggerKey": "shop.order"}}
    return await ok(await api.post("/schedules", json=body | fields), 201)


async def _ask(api: httpx.AsyncClient, poll: Json) -> Json:
    """Lets it ask once, and waits for the end of that."""
    before = (await ok(await api.get(f"/schedules/{poll['id']}")))["lastRunAt"]
    await asyncio.sleep(1.05)
    await ok(await api.post(f"/schedules/{poll['id']}/run"), 202)
    for _ in range(150):
        found = await ok(await api.get(f"/schedules/{poll['id']}"))
        if found["lastRunAt"] != before:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("it has not asked")


async def _items(database: Database, poll: Json) -> list[Any]:
    statement = "SELECT payload FROM trigger_event WHERE source = 'poll' AND dedupe_key LIKE $1 ORDER BY id"
    async with database.driver() as connection:
        return [row["payload"]["item"] for row in await connection.fetch(statement, f"{poll['id']}:%")]


@pytest.mark.usefixtures("working")
async def test_each_item_is_an_event_once_however_often_it_is_shown(
    api: httpx.AsyncClient, database: Database, shop: Shop
) -> None:
    poll = await _create(api, _orders(shop))
    shop.orders = [{"n": 1}, {"n": 2}, {"n": 2}]
    await _ask(api, poll)
    shop.orders = [{"n": 2, "changed": True}, {"n": 3}]
    await _ask(api, poll)
    assert await _items(database, poll) == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.usefixtures("working")
async def test_an_item_comes_again_where_its_id_says_that_it_has_changed(
    api: httpx.AsyncClient, database: Database, shop: Shop
) -> None:
    poll = await _create(api, _orders(shop, id="$string(__trigger__.item.n) & '/' & __trigger__.item.at"))
    shop.orders = [{"n": 1, "at": "09:00"}]
    await _ask(api, poll)
    shop.orders = [{"n": 1, "at": "10:00"}]
    await _ask(api, poll)
    assert [item["at"] for item in await _items(database, poll)] == ["09:00", "10:00"]


@pytest.mark.usefixtures("working")
async def test_the_cursor_goes_into_the_next_request(api: httpx.AsyncClient, database: Database, shop: Shop) -> None:
    query = {"since": {"type": "expr", "expr": "__trigger__.cursor"}, "kind": "paid"}
    source = {"query": query, "headers": {"X-Shop": "north"}, "secretHeaders": {"Authorization": "token"}}
    poll = await _create(api, _orders(shop, source=source, cursor="$max(__trigger__.items.n)"))
    shop.orders = [{"n": 4}, {"n": 7}]
    assert (await _ask(api, poll))["cursor"] == 7
    shop.orders.append({"n": 9})
    assert (await _ask(api, poll))["cursor"] == 9
    assert (await _ask(api, poll))["cursor"] == 9
    assert [dict(asked.query_params) for asked in shop.asked] == [
        {"kind": "paid"},
        {"since": "7", "kind": "paid"},
        {"since": "9", "kind": "paid"},
    ]
    assert {(asked.headers["x-shop"], asked.headers["authorization"]) for asked in shop.asked} == {
        ("north", "Bearer hunter2")
    }
    assert [item["n"] for item in await _items(database, poll)] == [4, 7, 9]
    assert "hunter2" not in (await api.get(f"/schedules/{poll['id']}")).text


@pytest.mark.usefixtures("working")
async def test_from_now_the_first_answer_is_only_remembered(
    api: httpx.AsyncClient, database: Database, shop: Shop
) -> None:
    poll = await _create(api, _orders(shop, begin="NOW"))
    shop.orders = [{"n": 1}, {"n": 2}]
    await _ask(api, poll)
    shop.orders.append({"n": 3})
    await _ask(api, poll)
    assert await _items(database, poll) == [{"n": 3}]


@pytest.mark.usefixtures("working")
async def test_a_template_is_started_with_the_item_as_its_context(
    api: httpx.AsyncClient, database: Database, shop: Shop
) -> None:
    template = await active_template(api)
    plain = await _create(api, _orders(shop), {"templateId": template["id"]})
    context = {"order": {"type": "expr", "expr": "__trigger__.item"}}
    named = {"type": "template", "src": "Order {{ __trigger__.itemId }}"}
    made = await _create(api, _orders(shop), {"templateId": template["id"], "context": context, "name": named})
    shop.orders = [{"n": 1}]
    await _ask(api, plain)
    await _ask(api, made)
    statement = "SELECT payload, template_id FROM trigger_event WHERE dedupe_key = $1"
    async with database.driver() as connection:
        first = await connection.fetchrow(statement, f"{plain['id']}:1")
        second = await connection.fetchrow(statement, f"{made['id']}:1")
    assert first is not None
    assert second is not None
    assert (first["payload"]["context"], str(first["template_id"])) == ({"n": 1}, template["id"])
    assert (second["payload"]["context"], second["payload"]["name"]) == ({"order": {"n": 1}}, "Order 1")


@pytest.mark.usefixtures("working")
async def test_an_error_is_shown_counted_and_gone_with_the_next_answer_and_no_item_is_lost(
    api: httpx.AsyncClient, database: Database, shop: Shop
) -> None:
    poll = await _create(api, _orders(shop, cursor="$max(__trigger__.items.n)"))
    shop.orders, shop.status = [{"n": 1}], 500
    assert (await _ask(api, poll))["lastError"].startswith("HTTP_SERVER_ERROR")
    found = await _ask(api, poll)
    assert (found["failures"], found["cursor"]) == (2, None)
    shop.status = 200
    shop.orders.append({"n": 2, "id": "no number"})
    found = await _ask(api, poll)
    assert (found["failures"], found["lastError"], found["cursor"]) == (0, None, 2)
    assert [item["n"] for item in await _items(database, poll)] == [1, 2]


@pytest.mark.usefixtures("working")
async def test_an_answer_of_which_one_item_has_no_id_is_not_taken_at_all(
    api: httpx.AsyncClient, database: Database, shop: Shop
) -> None:
    poll = await _create(api, _orders(shop, id="__trigger__.item.key", cursor="$max(__trigger__.items.n)"))
    shop.orders = [{"n": 1, "key": "a"}, {"n": 2}]
    found = await _ask(api, poll)
    assert (found["lastError"][:15], found["cursor"]) == ("POLL_ID_INVALID", None)
    assert await _items(database, poll) == []
    shop.orders = [{"n": n, "key": str(n)} for n in range(1, 52)]
    assert (await _ask(api, poll))["lastError"].startswith("POLL_TOO_MANY")


async def test_a_private_address_is_refused_as_it_is_to_actions(
    api: httpx.AsyncClient, database: Database, settings: Settings, worker_client: Client, shop: Shop
) -> None:
    strict = settings.model_copy(update={"http_action": HttpActionSettings()})
    # The API's settings allow it.
    poll = await _create(api, _orders(shop))
    async with build_worker(worker_client, database, strict, ()):
        assert (await _ask(api, poll))["lastError"].startswith("HTTP_ADDRESS_REFUSED")
    assert shop.asked == []


async def test_a_restart_in_between_neither_loses_nor_repeats(
    api: httpx.AsyncClient, database: Database, settings: Settings, worker_client: Client, shop: Shop
) -> None:
    poll = await _create(api, _orders(shop, cursor="$max(__trigger__.items.n)"), spec={"intervals": [{"every": 1}]})
    for n in range(1, 4):
        async with build_worker(worker_client, database, settings, ()):
            shop.orders.append({"n": n})
            for _ in range(300):
                if len(await _items(database, poll)) == n:
                    break
                await asyncio.sleep(0.1)
    await api.delete(f"/schedules/{poll['id']}")
    assert await _items(database, poll) == [{"n": 1}, {"n": 2}, {"n": 3}]


@pytest.mark.usefixtures("working")
async def test_rows_of_a_table_are_taken_from_the_cursor_on(api: httpx.AsyncClient, database: Database) -> None:
    table = f"orders_{uuid4().hex}"
    async with database.driver() as connection:
        await connection.execute(f"CREATE TABLE {table} (id int, at timestamptz, total numeric, tags jsonb)")
        await connection.execute(f"INSERT INTO {table} VALUES (1, '2027-01-01 10:00:00.000001+00', 9.90, '[1]')")
    # A cursor in a text is none.
    condition = "':cursor' <> '' AND (:cursor::timestamptz IS NULL OR at > :cursor)"
    query = f"SELECT * FROM {table} WHERE {condition} ORDER BY at LIMIT 50"
    source = {"type": "SQL", "connection": "shop", "query": query}
    poll = await _create(api, {"source": source, "id": "__trigger__.item.id", "cursor": "__trigger__.items[-1].at"})
    found = await _ask(api, poll)
    assert found["lastError"] is None
    assert found["cursor"] == "2027-01-01T10:00:00.000001+00:00"
    async with database.driver() as connection:
        await connection.execute(f"INSERT INTO {table} VALUES (2, '2027-01-01 10:00:00.000002+00', 1, NULL)")
    await _ask(api, poll)
    assert (await _ask(api, poll))["cursor"] == "2027-01-01T10:00:00.000002+00:00"
    assert await _items(database, poll) == [
        {"id": 1, "at": "2027-01-01T10:00:00.000001+00:00", "total": 9.9, "tags": [1]},
        {"id": 2, "at": "2027-01-01T10:00:00.000002+00:00", "total": 1, "tags": None},
    ]


@pytest.mark.usefixtures("working")
async def test_a_query_may_give_what_json_cannot_hold(api: httpx.AsyncClient, database: Database) -> None:
    deep = "[" * 3_000 + "]" * 3_000
    columns = (
        f"1 AS id, 'NaN'::float8 AS nan, '[1e5000]'::jsonb AS huge, '{deep}'::jsonb AS deep, 9007199254740993 AS big"
    )
    source = {"type": "SQL", "connection": "shop", "query": f"SELECT {columns}"}
    poll = await _create(api, {"source": source, "id": "__trigger__.item.id"})
    assert (await _ask(api, poll))["lastError"] is None
    (item,) = await _items(database, poll)
    assert (item["nan"], item["huge"], item["big"]) == ("NaN", ["1" + "0" * 5000], "9007199254740993")


async def test_what_could_never_be_asked_is_refused_when_it_is_saved(
    api: httpx.AsyncClient, shop: Shop, serve: Serve
) -> None:
    def body(poll: Json, **fields: Any) -> Json:
        return {"name": "p", "spec": NEVER, "target": {"triggerKey": "k"}, "poll": poll, **fields}

    source = {"type": "SQL", "connection": "nowhere", "query": "SELECT 1"}
    unknown = body({"source": source, "id": "__trigger__.item.id"})
    refused(await api.post("/schedules", json=unknown), 422, "CONNECTION_UNKNOWN")
    secret = body(_orders(shop, source={"secretHeaders": {"Authorization": "nobody-knows"}}))
    refused(await api.post("/schedules", json=secret), 422, "SECRET_UNKNOWN")
    for wrong in (
        body(_orders(shop, source={"headers": {"Authorization": "Bearer open-to-all"}})),
        body(_orders(shop, id="__trigger__.item.(")),
        body(_orders(shop, id="$now()")),
        body(_orders(shop), overlap="ALLOW_ALL"),
        body(_orders(shop, source={"url": "http://ann:secret@shop.example/"})),
    ):
        problem = refused(await api.post("/schedules", json=wrong), 422, "REQUEST_INVALID")
        assert "open-to-all" not in str(problem)
