"""A whole file in one request: all of it becomes a backfill, or nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.db.session import Database
from app.settings import BackfillSettings, Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, link, ok, refused

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson; charset=utf-8"}
LIMIT = 300_000


@pytest.fixture(scope="module")
async def api(serve: Serve, settings: Settings, database: Database, temporal: Temporal) -> httpx.AsyncClient:
    ours = settings.model_copy(update={"backfills": BackfillSettings(max_upload_bytes=LIMIT)})
    return await serve(ours, database, temporal)


async def upload(api: httpx.AsyncClient, content: Any, headers: dict[str, str] = CSV, **query: Any) -> httpx.Response:
    return await api.post("/backfills/upload", content=content, headers=headers, params={"name": "Past"} | query)


async def rows_of(api: httpx.AsyncClient, backfill: Json) -> list[Json]:
    page = await ok(await api.get(f"/backfills/{backfill['id']}/rows", params={"limit": 100}))
    items: list[Json] = page["items"]
    return items


async def _names(api: httpx.AsyncClient) -> list[str]:
    return [one["name"] for one in (await ok(await api.get("/backfills", params={"limit": 100})))["items"]]


async def test_a_csv_is_taken_row_by_row_and_says_which_rows_are_bad(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    text = '\ufeffid;who;at\n1;Ann;2026-01-01\n2;"Z\noë";2026-01-02\n3;Bob\n4;Eve;2025-12-31\n'
    query = {"template": template["slug"], "eventId": "id", "context": ["name=who"], "nameColumn": "who"}
    query |= {"time": "at", "since": "2026-01-01", "rate": 5, "start": "false"}
    made = await ok(await upload(api, text.encode(), **query), 201)
    assert (made["status"], made["rate"], made["rows"]["total"], made["rows"]["invalid"]) == ("LOADING", 5.0, 3, 1)
    assert made["source"]["kind"] == "csv"
    assert len(made["source"]["sha256"]) == 64
    found = [
        (one["number"], one["eventId"], one["name"], one["context"], one["code"]) for one in await rows_of(api, made)
    ]
    assert found == [
        (2, "1", "Ann", {"name": "Ann"}, None),
        (3, "2", "Z\noë", {"name": "Z\noë"}, None),
        (5, None, None, None, "COLUMNS_WRONG"),
    ]


@pytest.mark.usefixtures("working")
async def test_ndjson_of_entities_is_started_at_once(api: httpx.AsyncClient) -> None:
    entity = await link(api, await active_template(api))
    lines = [{"service": entity, "id": uuid4().hex, "n": n} for n in range(40)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "{]\n"
    query = {"entityType": "PRODUCT", "entityId": "service", "eventId": "id", "map": '{"n": __trigger__.n * 2}'}
    made = await ok(await upload(api, text.encode(), NDJSON, **query), 201)
    assert made["status"] == "RUNNING"
    for _ in range(200):
        found = await ok(await api.get(f"/backfills/{made['id']}"))
        if found["status"] == "COMPLETED":
            break
        await asyncio.sleep(0.1)
    assert (found["rows"]["started"], found["rows"]["invalid"]) == (40, 1)
    assert [one["context"] for one in await rows_of(api, made)][:3] == [{"n": 0}, {"n": 2}, {"n": 4}]


async def test_a_file_larger_than_may_be_is_refused_whether_it_says_so_or_not(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    whole = b"who\n" + b"Ann\n" * (LIMIT // 4)

    async def unannounced() -> AsyncIterator[bytes]:
        for first in range(0, len(whole), 50_000):
            yield whole[first : first + 50_000]

    name = uuid4().hex
    query = {"template": template["slug"], "name": name}
    refused(await upload(api, whole, **query), 413, "BODY_TOO_LARGE")
    refused(await upload(api, unannounced(), **query), 413, "BODY_TOO_LARGE")
    # Larger than other bodies may be, and not than a file may be.
    made = await ok(await upload(api, whole[: LIMIT - 3], start="false", **query), 201)
    assert made["rows"]["total"] > 70_000
    assert (await _names(api)).count(name) == 1


async def test_a_sender_who_goes_away_in_the_middle_leaves_nothing_behind(
    api: httpx.AsyncClient, database: Database
) -> None:
    template, name = await active_template(api), uuid4().hex
    host, port = api.base_url.host, api.base_url.port
    _, writer = await asyncio.open_connection(host, port)
    address = f"/api/v1/backfills/upload?name={name}&template={template['slug']}"
    head = f"POST {address} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: text/csv\r\nContent-Length: 4000\r\n\r\n"
    writer.write(head.encode() + b"who\n" + b"Ann\n" * 200)
    await writer.drain()
    await asyncio.sleep(0.3)
    async with database.driver() as connection:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'"
        assert await connection.fetchval(busy) == 0
    writer.transport.abort()
    await asyncio.sleep(0.3)
    assert name not in await _names(api)


async def test_what_fails_in_the_middle_of_a_file_leaves_nothing_behind(
    serve: Serve, settings: Settings, database: Database, converter: Any, api: httpx.AsyncClient
) -> None:
    away = settings.temporal.model_copy(update={"address": "127.0.0.1:1", "connect_timeout": 0.5})
    without = await serve(settings, database, Temporal(away, converter))
    template, name = await active_template(api), uuid4().hex
    query = {"name": name, "template": template["slug"]}
    refused(await upload(without, b"who\n" + b"Ann\n" * 2_000, **query), 503, "TEMPORAL_UNAVAILABLE")
    assert name not in await _names(api)


async def test_a_file_sent_again_with_its_key_is_one_backfill(api: httpx.AsyncClient) -> None:
    template, name = await active_template(api), uuid4().hex
    key, query = {**CSV, "Idempotency-Key": uuid4().hex}, {"name": name, "template": template["slug"], "start": "false"}
    answers = await asyncio.gather(*(upload(api, b"who\nAnn\nBob\n", key, **query) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    refused(await upload(api, b"who\nAnn\nEve\n", key, **query), 409, "IDEMPOTENCY_CONFLICT")
    refused(await upload(api, b"who\nAnn\nBob\n", key, **query, rate=3), 409, "IDEMPOTENCY_CONFLICT")
    assert (await _names(api)).count(name) == 1


@pytest.mark.parametrize(
    ("query", "headers", "content", "status", "code"),
    [
        ({}, CSV, b"a\n1\n", 422, "TARGET_MISSING"),
        ({"entityType": "PRODUCT"}, CSV, b"a\n1\n", 422, "ENTITY_MISSING"),
        ({"template": "none"}, CSV, b"a\n1\n", 404, "TEMPLATE_NOT_FOUND"),
        ({"entityType": "PRODUCT", "entityId": "b"}, CSV, b"a\n1\n", 422, "COLUMN_UNKNOWN"),
        ({"entityType": "PRODUCT", "entityId": "a"}, CSV, b"", 422, "BODY_EMPTY"),
        ({"entityType": "PRODUCT", "entityId": "a"}, CSV, b"a,a\n1,2\n", 422, "HEADER_INVALID"),
        ({"entityType": "PRODUCT", "entityId": "a"}, {"Content-Type": "text/html"}, b"{}", 415, "MEDIA_TYPE_UNKNOWN"),
        ({"entityType": "PRODUCT", "entityId": "a"}, {}, b"a\n1\n", 415, "MEDIA_TYPE_UNKNOWN"),
        ({"entityType": "PRODUCT", "entityId": "a", "map": "("}, CSV, b"a\n1\n", 422, "MAPPING_INVALID"),
        ({"entityType": "PRODUCT", "entityId": "a", "map": "1", "context": "a"}, CSV, b"a\n", 422, "MAPPING_INVALID"),
        ({"entityType": "PRODUCT", "entityId": "a", "since": "2026-01-01"}, CSV, b"a\n1\n", 422, "TIME_INVALID"),
        ({"entityType": "PRODUCT", "entityId": "a", "delimiter": ";"}, NDJSON, b"{}", 422, "MAPPING_INVALID"),
        ({"entityType": "PRODUCT", "entityID": "a"}, CSV, b"a\n1\n", 422, "REQUEST_INVALID"),
        ({"entityType": "PRODUCT", "entityId": "a", "name": " "}, CSV, b"a\n1\n", 422, "REQUEST_INVALID"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
async def test_a_file_that_cannot_be_taken_is_refused_and_leaves_no_backfill(
    api: httpx.AsyncClient, query: Json, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    before = len(await _names(api))
    refused(await upload(api, content, headers, **query), status, code)
    assert len(await _names(api)) == before


async def test_a_file_is_refused_to_pages_of_other_sites_and_under_other_names(api: httpx.AsyncClient) -> None:
    foreign = await upload(api, b"a\n1\n", CSV | {"Origin": "https://elsewhere.example"}, template="t")
    refused(foreign, 403, "ORIGIN_REFUSED")
    refused(await upload(api, b"a\n1\n", CSV | {"Host": "elsewhere.example"}, template="t"), 403, "HOST_REFUSED")


SLOW_TO_COMMIT = """
    CREATE FUNCTION slow_to_commit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow_to_commit AFTER INSERT ON backfill DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION slow_to_commit()
"""


@pytest.mark.usefixtures("working")
async def test_a_file_whose_commit_takes_long_is_started_all_the_same(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    async with database.driver() as connection:
        await connection.execute(SLOW_TO_COMMIT)
    try:
        made = await ok(await upload(api, b"who\nAnn\nBob\n", template=template["slug"]), 201)
    finally:
        async with database.driver() as connection:
            await connection.execute("DROP FUNCTION slow_to_commit CASCADE")
    for _ in range(100):
        found = await ok(await api.get(f"/backfills/{made['id']}"))
        if found["status"] == "COMPLETED":
            break
        await asyncio.sleep(0.1)
    assert (found["status"], found["rows"]["started"]) == ("COMPLETED", 2)


READ = """
    SELECT pg_stat_force_next_flush(), seq_tup_read + idx_tup_fetch AS rows FROM pg_stat_user_tables
    WHERE relname = 'backfill_row'
"""


async def test_a_row_costs_the_same_however_many_came_before_whatever_postgres_believes_of_them(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    query = {"template": template["slug"], "eventId": "id", "start": "false"}
    await ok(await upload(api, b"id\n" + b"".join(b"%d\n" % n for n in range(40)), **query), 201)
    async with database.driver() as connection:
        await connection.execute("VACUUM ANALYZE backfill_row")
        before = (await connection.fetchrow(READ))["rows"]
    text = b"id\n" + b"".join(b"%d\n" % n for n in range(12_000))
    made = await ok(await upload(api, text, **query), 201)
    assert made["rows"]["total"] == 12_000
    async with database.driver() as connection:
        for _ in range(100):
            read = (await connection.fetchrow(READ))["rows"] - before
            if read:
                break
            await asyncio.sleep(0.1)
    # What is read of them afterwards are the counts of the answer.
    assert 0 < read < 3 * 12_000


@pytest.mark.usefixtures("working")
async def test_rows_are_started_at_once_whatever_postgres_believes_of_them(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    query = {"template": template["slug"], "eventId": "id"}
    await ok(await upload(api, b"id\n" + b"".join(b"%d\n" % n for n in range(40)), **query, start="false"), 201)
    async with database.driver() as connection:
        await connection.execute("VACUUM ANALYZE backfill_row")
    text = b"id\n" + b"".join(b"%d\n" % n for n in range(40_000))
    made = await ok(await upload(api, text, **query, rate=5), 201)
    for _ in range(100):
        found = await ok(await api.get(f"/backfills/{made['id']}"))
        if found["rows"]["started"] > 5:
            break
        await asyncio.sleep(0.1)
    await ok(await api.post(f"/backfills/{made['id']}/cancel"))
    assert found["rows"]["started"] > 5
