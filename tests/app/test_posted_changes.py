"""Changes that Debezium, or somebody who writes like it, posts over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.db.session import Database
from tests.app.scenes import Json, ok, refused

PATH = "/changes/debezium"


def envelope(op: str, before: Any, after: Any, lsn: int | None = 100, table: str = "deals") -> Json:
    source = {"connector": "postgresql", "name": "dbserver1", "db": "crm", "schema": "public", "table": table}
    return {
        "op": op, "before": before, "after": after, "ts_ms": 1_769_850_000_500,
        "source": source | {"ts_ms": 1_769_850_000_000, "lsn": lsn, "txId": 7},
    }  # fmt: skip


@pytest.fixture
async def deals(api: httpx.AsyncClient, database: Database) -> AsyncIterator[Json]:
    body = {"connection": "crm", "table": "deals", "method": "POSTED"}
    source = await ok(await api.post("/change-sources", json=body), 201)
    yield source
    assert (await api.delete(f"/change-sources/{source['id']}")).status_code == 204
    async with database.driver() as connection:
        await connection.execute("DELETE FROM trigger_event")


async def payloads(database: Database) -> list[Any]:
    async with database.driver() as connection:
        found = await connection.fetch("SELECT payload FROM trigger_event ORDER BY id")
    return [row["payload"] for row in found]


async def test_envelopes_are_told_like_changes_that_were_read(
    api: httpx.AsyncClient, deals: Json, database: Database
) -> None:
    new, won = {"id": 1, "stage": "new"}, {"id": 1, "stage": "won"}
    events = [envelope("c", None, new, 1), envelope("u", new, won, 2), envelope("d", won, None, 3)]
    answer = await ok(await api.post(PATH, json=events), 202)
    assert (answer["stored"], answer["repeated"], answer["skipped"], len(answer["eventRecordIds"])) == (3, 0, 0, 3)
    inserted, updated, deleted = await payloads(database)
    assert (inserted["operation"], inserted["before"], inserted["after"]) == ("INSERT", None, new)
    assert (updated["before"], updated["after"], updated["changed_columns"]) == (new, won, ["stage"])
    assert (deleted["operation"], deleted["before"], deleted["after"]) == ("DELETE", won, None)
    assert updated["timestamp"] == "2026-01-31T09:00:00+00:00"
    assert updated["metadata"] == {"lsn": 2, "txid": 7, "source": "crm", "method": "POSTED"}


async def test_rows_that_were_flattened_are_told_with_what_they_know(
    api: httpx.AsyncClient, deals: Json, database: Database
) -> None:
    marks = {"__table": "deals", "__source_ts_ms": 1_769_850_000_000}
    events = [
        {"id": 1, "stage": "new", "__op": "c", "__lsn": 1, **marks},
        {"id": 1, "stage": "won", "__op": "u", "__lsn": 2, **marks},
        {"id": 1, "__op": "d", "__deleted": "true", "__lsn": 3, **marks},
    ]
    await ok(await api.post(PATH, json=events), 202)
    inserted, updated, deleted = await payloads(database)
    assert inserted["after"] == {"id": 1, "stage": "new"}
    assert (updated["before"], updated["changed_columns"]) == (None, None)
    assert (deleted["before"], deleted["after"]) == ({"id": 1}, None)


async def test_snapshots_and_tombstones_are_no_changes(api: httpx.AsyncClient, deals: Json, database: Database) -> None:
    answer = await ok(await api.post(PATH, json=[envelope("r", None, {"id": 1}), None, {"payload": None}]), 202)
    assert (answer["stored"], answer["skipped"]) == (0, 3)
    answer = await ok(await api.post(PATH, content=b"null", headers={"content-type": "application/json"}), 202)
    assert answer["skipped"] == 1
    assert await payloads(database) == []


async def test_an_event_with_its_schema_is_unwrapped(api: httpx.AsyncClient, deals: Json, database: Database) -> None:
    await ok(await api.post(PATH, json={"schema": {}, "payload": envelope("c", None, {"id": 1})}), 202)
    assert [one["after"] for one in await payloads(database)] == [{"id": 1}]


async def test_a_repetition_is_known_by_its_position(api: httpx.AsyncClient, deals: Json, database: Database) -> None:
    event = envelope("c", None, {"id": 1})
    later = {**event, "ts_ms": 1}
    answers = await asyncio.gather(*(api.post(PATH, json=[one]) for one in (event, later, event, later)))
    assert sorted(answer.json()["stored"] for answer in answers) == [0, 0, 0, 1]
    await ok(await api.post(PATH, json=[envelope("c", None, {"id": 1}, 101)]), 202)
    assert len(await payloads(database)) == 2


async def test_without_a_position_the_sender_gives_a_key(
    api: httpx.AsyncClient, deals: Json, database: Database
) -> None:
    event = {"__op": "c", "id": 1}
    query = {"table": "deals"}
    refused(await api.post(PATH, json=event, params=query), 422, "DEDUPE_KEY_MISSING")
    key = {"Idempotency-Key": "k1"}
    for stored in (1, 0):
        answer = await ok(await api.post(PATH, json=event, params=query, headers=key), 202)
        assert answer["stored"] == stored
    other = [event | {"id": 2}, event | {"id": 3}]
    refused(await api.post(PATH, json=other, params=query, headers=key), 409, "IDEMPOTENCY_CONFLICT")
    assert [one["after"]["id"] for one in await payloads(database)] == [1]


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (envelope("c", None, {"id": 1}, table="others"), 404, "CHANGE_SOURCE_NOT_FOUND"),
        (envelope("x", None, {"id": 1}), 422, "CHANGE_INVALID"),
        (envelope("c", None, None), 422, "CHANGE_INVALID"),
        (envelope("d", None, None), 422, "CHANGE_INVALID"),
        (envelope("u", "before", {"id": 1}), 422, "CHANGE_INVALID"),
        ({"id": 1}, 422, "CHANGE_INVALID"),
        ({"op": {}, "after": {}}, 422, "CHANGE_INVALID"),
        ({"op": "c", "source": 7, "after": {}}, 422, "CHANGE_INVALID"),
        ({"__op": "c", "__lsn": 1, "id": 1}, 422, "TABLE_NOT_NAMED"),
        ("text", 422, "CHANGE_INVALID"),
    ],
)
async def test_one_bad_event_refuses_them_all(
    api: httpx.AsyncClient, deals: Json, database: Database, event: Any, status: int, code: str
) -> None:
    refused(await api.post(PATH, json=[envelope("c", None, {"id": 1}), event]), status, code)
    assert await payloads(database) == []


async def test_a_paused_source_takes_nothing(api: httpx.AsyncClient, deals: Json, database: Database) -> None:
    await ok(await api.post(f"/change-sources/{deals['id']}/pause"))
    refused(await api.post(PATH, json=envelope("c", None, {"id": 1})), 409, "CHANGE_SOURCE_PAUSED")
    await ok(await api.post(f"/change-sources/{deals['id']}/resume"))
    await ok(await api.post(PATH, json=envelope("c", None, {"id": 1})), 202)


async def test_a_monitor_needs_the_row_before(api: httpx.AsyncClient, database: Database) -> None:
    body = {"connection": "crm", "table": "leads", "method": "POSTED", "statusColumn": "stage"}
    source = await ok(await api.post("/change-sources", json=body), 201)
    event = envelope("u", None, {"id": 1, "stage": "won"}, table="leads")
    refused(await api.post(PATH, json=event), 422, "BEFORE_NOT_KNOWN")
    event["before"] = {"id": 1, "stage": "new"}
    assert (await ok(await api.post(PATH, json=event), 202))["stored"] == 1
    await api.delete(f"/change-sources/{source['id']}")


async def test_a_key_or_table_that_is_too_long_is_refused(api: httpx.AsyncClient, deals: Json) -> None:
    event = envelope("c", None, {"id": 1})
    refused(await api.post(PATH, json=event, params={"table": "t" * 64}), 422, "REQUEST_INVALID")
    refused(await api.post(PATH, json=event, headers={"Idempotency-Key": "k" * 401}), 422, "REQUEST_INVALID")
    await ok(await api.post(PATH, json=event, headers={"Idempotency-Key": "k" * 400}), 202)
