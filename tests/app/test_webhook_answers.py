"""What an endpoint may be made to answer, and how it looks on the wire."""

from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.db.session import Database
from tests.app.scenes import Json, ok, refused, webhook

CUSTOM = {"mode": "CUSTOM"}
ECHO = {"type": "expr", "expr": {"src": "__trigger__.body"}}


def asking(response: Json) -> Json:
    return {"name": "n", "path": "never-made", "verification": {"scheme": "NONE"}, "response": CUSTOM | response}


@pytest.mark.parametrize(
    "response",
    [
        {"status": 204, "body": "x"},
        {"status": 204, "body": ECHO},
        {"status": 205, "body": {"a": 1}},
        {"status": 304, "body": ECHO},
        {"status": 100},
        {"status": 199},
        {"status": {"type": "expr", "expr": {"src": "204"}}, "body": "x"},
        {"headers": {"X-A": "a\rb"}},
        {"headers": {"X-A": "a\nb"}},
        {"headers": {"X-A": "a\n"}},
        {"headers": {"X-A\r\nX-B": "a"}},
        {"headers": {"X-A": "a", "x-a": "b"}},
        {"headers": {"Content-Type": "nonsense"}, "body": "x"},
        {"headers": {"Content-Type": ""}, "body": "x"},
        {"headers": {"content-type": "text/plain; charset=latin-1"}, "body": "x"},
        {"headers": {"content-type": "text/plain; charset"}, "body": "x"},
        {"headers": {"Content-Type": "text/plain, text/html"}, "body": "x"},
        {"status": 204, "headers": {"Content-Type": "text/plain"}},
    ],
    ids=range(18),
)
async def test_an_answer_that_could_not_be_sent_is_refused_when_it_is_saved(
    api: httpx.AsyncClient, response: Json
) -> None:
    problem = refused(await api.post("/webhook-endpoints", json=asking(response)), 422, "REQUEST_INVALID")
    assert all(finding["path"].startswith("body.response") for finding in problem["problems"])
    endpoint = await webhook(api)
    change = {"response": CUSTOM | response}
    refused(await api.patch(f"/webhook-endpoints/{endpoint['id']}", json=change), 422, "REQUEST_INVALID")


@pytest.mark.parametrize(
    ("name", "content_type", "body", "sent"),
    [
        ("content-type", "application/xml", "<a/>", "<a/>"),
        ("Content-Type", "text/html; charset=UTF-8", "é", "é"),
        ("Content-TYPE", "application/vnd.api+json", {"a": 1}, '{"a":1}'),
        ("Content-Type", 'text/plain; charset="utf-8"', "x", "x"),
    ],
)
async def test_a_content_type_of_the_endpoints_own_is_the_only_one(
    api: httpx.AsyncClient, name: str, content_type: str, body: Any, sent: str
) -> None:
    headers = {name: content_type, "x-CONTENT-type-options": "sniff"}
    endpoint = await webhook(api, response=CUSTOM | {"headers": headers, "body": body})
    answer = await api.post(f"/hooks/{endpoint['path']}", json={})
    assert (answer.status_code, answer.text) == (200, sent)
    assert answer.headers.get_list("content-type") == [content_type]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_an_answer_without_a_body_says_nothing_of_its_type(api: httpx.AsyncClient) -> None:
    for status in (204, 304):
        endpoint = await webhook(api, response=CUSTOM | {"status": status, "headers": {"X-Say": "hi"}})
        answer = await api.post(f"/hooks/{endpoint['path']}", json={})
        assert (answer.status_code, answer.content, answer.headers["x-say"]) == (status, b"", "hi")
        assert "content-type" not in answer.headers


async def test_an_answer_that_was_saved_with_a_body_that_its_status_has_none_is_sent_without(
    api: httpx.AsyncClient, database: Database
) -> None:
    endpoint = await webhook(api, response=CUSTOM | {"body": ECHO})
    statement = "UPDATE webhook_endpoint SET response = response || '{\"status\": 204}' WHERE id = :id"
    async with database.transaction() as session:
        await session.execute(text(statement), {"id": endpoint["id"]})
    for _ in range(2):
        answer = await api.post(f"/hooks/{endpoint['path']}", json={"a": 1})
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await ok(await api.get("/webhook-endpoints")))["items"]
