"""Which endpoint gets a request, and what it refuses before and after it knows who sends."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.db.session import Database
from tests.app.scenes import ok, refused, webhook
from tests.app.webhook_senders import (
    SECRET,
    deliveries,
    event_of,
    github,
    send,
)


async def test_the_endpoint_that_says_most_about_a_path_gets_it(api: httpx.AsyncClient, database: Database) -> None:
    top = uuid4().hex
    for index, path in enumerate([f"{top}/**", f"{top}/{{id}}", f"{top}/eu-*", f"{top}/eu-1"]):
        await webhook(api, path=path, triggerKey=f"key_{index}")
    for index, path in enumerate(["a/b", "a", "eu-2", "eu-1"]):
        event = await event_of(database, await send(api, {}, {}, path=f"{top}/{path}"))
        assert event.trigger_key == f"key_{index}"


async def test_an_unknown_address_and_one_that_is_off_look_the_same(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, enabled=False)
    off = refused(await send(api, endpoint), 404, "WEBHOOK_NOT_FOUND")
    assert off == refused(await send(api, {}, path="nothing/here"), 404, "WEBHOOK_NOT_FOUND")
    assert off == refused(await send(api, {}, path="x" * 5000), 404, "WEBHOOK_NOT_FOUND")
    assert (await deliveries(api, endpoint))["refused"] == {"WEBHOOK_DISABLED": 1}


async def test_another_method_is_refused_and_told_which_there_are(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, methods=["PUT", "POST"])
    for method in ("GET", "DELETE", "OPTIONS", "PATCH"):
        response = await send(api, endpoint, method=method)
        refused(response, 405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == "POST, PUT"
    assert (await deliveries(api, endpoint))["refused"] == {"METHOD_NOT_ALLOWED": 4}


async def test_more_than_the_rate_is_refused_until_it_has_refilled(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, rateLimit={"requests": 3, "seconds": 3})
    answers = await asyncio.gather(*(send(api, endpoint) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [202, 202, 202, 429, 429, 429]
    limited = next(answer for answer in answers if answer.status_code == 429)
    refused(limited, 429, "RATE_LIMITED")
    assert limited.headers["retry-after"] == "1"
    await asyncio.sleep(1.1)
    assert [(await send(api, endpoint)).status_code for _ in range(2)] == [202, 429]


async def test_headers_that_are_required_must_be_there_and_say_what_is_required(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, requiredHeaders={"X-Kind": "order", "X-Any": None})
    await ok(await send(api, endpoint, {}, {"x-kind": "order", "x-any": ""}), 202)
    for headers in ({"X-Kind": "order"}, {"X-Kind": "other", "X-Any": "1"}, {}):
        refused(await send(api, endpoint, {}, headers), 400, "HEADER_REQUIRED")


async def test_a_body_larger_than_the_endpoint_takes_is_refused(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, maxBytes=1000)
    refused(await send(api, endpoint, b'"' + b"x" * 999 + b'"'), 413, "BODY_TOO_LARGE")

    async def unannounced() -> Any:
        for _ in range(20):
            yield b"x" * 100

    address = f"/hooks/{endpoint['path']}"
    refused(await api.post(address, content=unannounced()), 413, "BODY_TOO_LARGE")
    await ok(await send(api, endpoint, b'"' + b"x" * 998 + b'"'), 202)
    assert (await deliveries(api, endpoint))["refused"] == {"BODY_TOO_LARGE": 2}


async def test_a_webhook_may_be_larger_than_other_requests(api: httpx.AsyncClient, database: Database) -> None:
    endpoint = await webhook(api, maxBytes=5_000_000)
    event = await event_of(database, await send(api, endpoint, {"text": "x" * 3_000_000}))
    assert len(event.payload["body"]["text"]) == 3_000_000


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/vnd.api+json; charset=utf-8", b'{"a": [1]}', {"a": [1]}),
        ("application/json", b'"text"', "text"),
        ("application/json", b"", None),
        ("application/x-www-form-urlencoded", b"a=1&b=2&b=3&c=", {"a": "1", "b": ["2", "3"], "c": ""}),
        ("text/plain", "héllo".encode(), {"text": "héllo"}),
        ("application/xml", b"<a/>", {"text": "<a/>"}),
        ("", b'{"a": 1}', {"a": 1}),
        ("", b"a: 1", {"text": "a: 1"}),
        ("application/json", b'{"a": "nul \\u0000"}', {"a": "nul \ufffd"}),
    ],
)
async def test_a_body_is_json_a_form_or_text(
    api: httpx.AsyncClient, database: Database, content_type: str, body: bytes, expected: Any
) -> None:
    response = await send(api, await webhook(api), body, {"Content-Type": content_type})
    assert (await event_of(database, response)).payload["body"] == expected


async def test_json_that_github_sends_in_a_form_is_its_body(api: httpx.AsyncClient, database: Database) -> None:
    endpoint = await webhook(api, verification={"scheme": "GITHUB"}, secret=SECRET)
    body = b"payload=%7B%22ref%22%3A%22main%22%7D"
    headers = github(body, SECRET, 0) | {"Content-Type": "application/x-www-form-urlencoded"}
    event = await event_of(database, await send(api, endpoint, body, headers))
    assert event.payload["body"] == {"ref": "main"}
    assert event.summary.endswith(" · github push")


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b"{", 400, "JSON_INVALID"),
        ("application/json", b"[" * 200 + b"]" * 200, 400, "JSON_TOO_DEEP"),
        ("application/json", b'{"a": 1, "a": 2}', 422, "JSON_MEMBER_REPEATED"),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1001), 400, "FORM_INVALID"),
        ("image/png", b"\x89PNG\xff", 415, "BODY_NOT_TEXT"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused_and_counted(
    api: httpx.AsyncClient, content_type: str, body: bytes, status: int, code: str
) -> None:
    endpoint = await webhook(api)
    refused(await send(api, endpoint, body, {"Content-Type": content_type}), status, code)
    assert (await deliveries(api, endpoint))["refused"] == {code: 1}


async def test_an_unbelieved_body_is_not_even_read(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, verification={"scheme": "GITHUB"}, secret=SECRET)
    refused(await send(api, endpoint, b"{"), 401, "SIGNATURE_INVALID")


async def test_a_page_of_another_site_cannot_send_webhooks_and_other_names_of_this_host_can(
    api: httpx.AsyncClient,
) -> None:
    endpoint = await webhook(api)
    refused(await send(api, endpoint, {}, {"Origin": "https://elsewhere.example"}), 403, "ORIGIN_REFUSED")
    await ok(await send(api, endpoint, {}, {"Host": "hooks.example"}), 202)
    refused(await api.get("/webhook-endpoints", headers={"Host": "hooks.example"}), 403, "HOST_REFUSED")


async def test_an_endpoint_may_answer_what_it_computes_from_the_request(api: httpx.AsyncClient) -> None:
    echo = {"type": "expr", "expr": {"src": "__trigger__.query.`hub.challenge`"}}
    endpoint = await webhook(api, methods=["GET"], response={"mode": "CUSTOM", "body": echo})
    answer = await send(api, endpoint, b"", params={"hub.challenge": "1158201444"}, method="GET")
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-security-policy"] == "sandbox"
    spec = {"mode": "CUSTOM", "status": 201, "headers": {"X-Say": "hi"}, "body": {"ok": True, "got": echo}}
    endpoint = await webhook(api, response=spec)
    answer = await send(api, endpoint, {}, params={"hub.challenge": "1"})
    assert (answer.status_code, answer.json(), answer.headers["x-say"]) == (201, {"ok": True, "got": "1"}, "hi")
    assert set(await ok(await send(api, endpoint, {}), 202)) == {"eventRecordId"}
    endpoint = await webhook(api, response={"mode": "CUSTOM", "status": 204})
    answer = await send(api, endpoint, {})
    assert (answer.status_code, answer.content) == (204, b"")
