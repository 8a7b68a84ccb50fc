"""What is known of a poll when it is saved: its mistakes are refused, each with its place in the body."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from app.settings import HttpActionSettings, PollingSettings, Settings
from tests.app.clockwork import NEVER
from tests.app.scenes import Json, ok, refused


@pytest.fixture(scope="module")
def settings(settings: Settings, database_url: str) -> Settings:
    """What the module's API is configured with."""
    connections = {
        "shop": SecretStr(database_url.replace("postgresql+asyncpg", "postgresql")),
        "away": SecretStr("postgresql://me:hunter2@127.0.0.1:1/shop"),
    }
    http_action = HttpActionSettings(allowed_private_hosts=("127.0.0.1",))
    polling = PollingSettings(timeout=5)
    return settings.model_copy(update={"connections": connections, "http_action": http_action, "polling": polling})


def _query(query: str, **fields: Any) -> Json:
    source = {"type": "SQL", "connection": fields.pop("connection", "shop"), "query": query}
    return {"source": source, "id": "__trigger__.item.id", **fields}


async def _save(api: httpx.AsyncClient, poll: Json) -> httpx.Response:
    body = {"name": f"p-{uuid4().hex}", "spec": NEVER, "poll": poll, "target": {"triggerKey": "k"}}
    return await api.post("/schedules", json=body)


@pytest.mark.parametrize(
    ("poll", "code", "path"),
    [
        (_query("SELEC 1 AS id"), "QUERY_REFUSED", "body.poll.source.query"),
        (_query("SELECT id FROM nowhere"), "QUERY_REFUSED", "body.poll.source.query"),
        (_query("DELETE FROM poll_item RETURNING item AS id"), "QUERY_REFUSED", "body.poll.source.query"),
        (
            _query("WITH gone AS (DELETE FROM poll_item RETURNING item AS id) SELECT id FROM gone"),
            "QUERY_REFUSED",
            "body.poll.source.query",
        ),
        (_query("SELECT 1 AS id, 2 AS id"), "QUERY_REFUSED", "body.poll.source.query"),
        (_query("SELECT 1 AS id WHERE :cursor::int > 0", id="__trigger__.item.it"), "COLUMN_UNKNOWN", "body.poll.id"),
        (
            _query("SELECT 1 AS id, now() AS at", cursor="__trigger__.items[id > 0].(at) & __trigger__.items[-1].on"),
            "COLUMN_UNKNOWN",
            "body.poll.cursor",
        ),
        (
            _query("SELECT 1 AS id", items="__trigger__.response[0].more", id="__trigger__.item.any"),
            "COLUMN_UNKNOWN",
            "body.poll.items",
        ),
    ],
)
async def test_a_query_that_could_never_be_asked_is_refused_when_it_is_saved(
    api: httpx.AsyncClient, poll: Json, code: str, path: str
) -> None:
    problem = refused(await _save(api, poll), 422, code)
    assert [one["path"] for one in problem["problems"]] == [path]
    poll_id = (await ok(await _save(api, _query("SELECT 1 AS id")), 201))["id"]
    refused(await api.patch(f"/schedules/{poll_id}", json={"poll": poll}), 422, code)


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"type": "HTTP"}, "body.poll.source.url"),
        ({"type": "SQL", "connection": "shop"}, "body.poll.source.query"),
        ({"type": "SQL", "connection": "shop", "query": "SELECT 1", "more": 1}, "body.poll.source.more"),
        ({"type": "HTTP", "url": {"type": "expr", "expr": "1 +"}}, "body.poll.source.url.expr"),
        ({"type": "HTTP", "url": "http://a", "query": {"SQL": {"type": "expr", "expr": "("}}},
         "body.poll.source.query.SQL.expr"),
        ({"type": "HTTP", "url": "http://a", "headers": {"Cookie": "x"}}, "body.poll.source"),
        ({"type": "FTP"}, "body.poll.source"),
        ("HTTP", "body.poll.source"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_source_is_told_by_its_place_in_the_body(
    api: httpx.AsyncClient, source: Any, path: str
) -> None:
    poll = {"source": source, "id": "$string(1"}
    problem = refused(await _save(api, poll), 422, "REQUEST_INVALID")
    assert [one["path"] for one in problem["problems"]] == [path, "body.poll.id"]
    assert all("value" not in one["message"] for one in problem["problems"] if one["code"] == "EXPRESSION_INVALID")


async def test_a_secret_that_is_not_configured_is_told_by_its_place_in_the_body(api: httpx.AsyncClient) -> None:
    source = {"type": "HTTP", "url": "http://a.example/", "secretHeaders": {"X-Key": "nobody's"}}
    problem = refused(await _save(api, {"source": source, "id": "__trigger__.item.id"}), 422, "SECRET_UNKNOWN")
    assert [one["path"] for one in problem["problems"]] == ["body.poll.source.secretHeaders.X-Key"]


async def test_what_a_query_may_be_without_is_not_refused(api: httpx.AsyncClient) -> None:
    guarded = "$exists(__trigger__.items.on) ? __trigger__.items[-1].on : __trigger__.items.x ?? __trigger__.items.id"
    nested = "__trigger__.item.id & __trigger__.item.more.anything"
    saved = await ok(await _save(api, _query("SELECT 1 AS id, '{}'::jsonb AS more", id=nested, cursor=guarded)), 201)
    assert saved["lastError"] is None


async def test_a_query_on_a_database_that_is_away_is_saved_and_says_that_it_was_not_checked(
    api: httpx.AsyncClient,
) -> None:
    saved = await ok(await _save(api, _query("SELEC 1", connection="away")), 201)
    assert saved["lastError"].startswith("CONNECTION_UNREACHABLE: ")
    assert "not checked" in saved["lastError"]
    assert "hunter2" not in saved["lastError"]
    assert (saved["failures"], saved["lastRunAt"]) == (0, None)
    changed = {"poll": _query("SELECT 2", connection="away")}
    assert "not checked" in (await ok(await api.patch(f"/schedules/{saved['id']}", json=changed)))["lastError"]
    mended = {"poll": _query("SELECT 1 AS id")}
    assert (await ok(await api.patch(f"/schedules/{saved['id']}", json=mended)))["lastError"] is None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://10.0.0.1/orders", "HTTP_ADDRESS_REFUSED"),
        ("http://[::1]:8080/orders", "HTTP_ADDRESS_REFUSED"),
        ("http://localhost/orders", "HTTP_ADDRESS_REFUSED"),
        ({"type": "const", "value": "http://169.254.169.254/latest"}, "HTTP_ADDRESS_REFUSED"),
        ("ftp://shop.example/orders", "HTTP_URL_INVALID"),
        ("shop.example/orders", "HTTP_URL_INVALID"),
    ],
    ids=["private", "loopback", "name", "const", "scheme", "relative"],
)
async def test_an_address_that_could_never_be_asked_is_refused_when_it_is_saved(
    api: httpx.AsyncClient, url: Any, code: str
) -> None:
    problem = refused(
        await _save(api, {"source": {"type": "HTTP", "url": url}, "id": "__trigger__.item.id"}), 422, code
    )
    assert [one["path"] for one in problem["problems"]] == ["body.poll.source.url"]


async def test_an_address_that_is_allowed_or_not_to_be_found_now_is_saved(api: httpx.AsyncClient) -> None:
    allowed = {"source": {"type": "HTTP", "url": "http://127.0.0.1:9/orders"}, "id": "__trigger__.item.id"}
    assert (await ok(await _save(api, allowed), 201))["lastError"] is None
    unknown = {"source": {"type": "HTTP", "url": "http://nobody.invalid/"}, "id": "__trigger__.item.id"}
    assert (await ok(await _save(api, unknown), 201))["lastError"].startswith("HTTP_HOST_UNKNOWN: ")
    computed = {"type": "expr", "expr": "'http://10.0.0.1/' & __trigger__.cursor"}
    later = {"source": {"type": "HTTP", "url": computed}, "id": "__trigger__.item.id"}
    assert (await ok(await _save(api, later), 201))["lastError"] is None
