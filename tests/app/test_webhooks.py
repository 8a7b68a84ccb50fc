"""What comes in at `/hooks/…`, over real HTTP: taken once, or refused for one reason."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.db.event_tables import TriggerEvent
from app.db.session import Database
from tests.app.scenes import Json, active_template, ok, refused, webhook

SECRET = "It's a Secret to Everybody"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Signer = Callable[[bytes, str, float], dict[str, str]]


def digest(key: bytes, message: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(key, message, algorithm).hexdigest()


def standard(body: bytes, secret: str, now: float, message_id: str | None = None) -> dict[str, str]:
    message_id, sent = message_id or f"msg_{uuid4().hex}", str(int(now))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.new(key, f"{message_id}.{sent}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(made).decode()}"
    return {"webhook-id": message_id, "webhook-timestamp": sent, "webhook-signature": signature}


def github(body: bytes, secret: str, now: float) -> dict[str, str]:
    signature = f"sha256={digest(secret.encode(), body)}"
    return {"X-GitHub-Event": "push", "X-GitHub-Delivery": str(uuid4()), "X-Hub-Signature-256": signature}


def stripe(body: bytes, secret: str, now: float) -> dict[str, str]:
    return {"Stripe-Signature": f"t={int(now)},v1={digest(secret.encode(), f'{int(now)}.'.encode() + body)}"}


def slack(body: bytes, secret: str, now: float) -> dict[str, str]:
    signature = f"v0={digest(secret.encode(), f'v0:{int(now)}:'.encode() + body)}"
    return {"X-Slack-Request-Timestamp": str(int(now)), "X-Slack-Signature": signature}


def generic(body: bytes, secret: str, now: float) -> dict[str, str]:
    made = hmac.new(secret.encode(), body, hashlib.sha512).digest()
    return {"X-Signature": f"sha512={base64.b64encode(made).decode()}"}


def bearer(body: bytes, secret: str, now: float) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def named(body: bytes, secret: str, now: float) -> dict[str, str]:
    return {"X-Gitlab-Token": secret}


HMAC = {"scheme": "HMAC", "header": "X-Signature", "algorithm": "sha512", "encoding": "base64", "prefix": "sha512="}
SCHEMES: list[tuple[Json, Signer]] = [
    ({"scheme": "STANDARD"}, standard),
    ({"scheme": "GITHUB"}, github),
    ({"scheme": "STRIPE"}, stripe),
    ({"scheme": "SLACK"}, slack),
    (HMAC, generic),
    ({"scheme": "TOKEN"}, bearer),
    ({"scheme": "TOKEN", "header": "X-Gitlab-Token"}, named),
]
TIMED = [one for one in SCHEMES if one[0]["scheme"] in {"STANDARD", "STRIPE", "SLACK"}]
each_scheme = pytest.mark.parametrize(("verification", "sign"), SCHEMES, ids=lambda one: getattr(one, "__name__", ""))
each_timed = pytest.mark.parametrize(("verification", "sign"), TIMED, ids=lambda one: getattr(one, "__name__", ""))


def secret_of(verification: Json) -> str:
    return STANDARD_SECRET if verification["scheme"] == "STANDARD" else SECRET


def other_secret_of(verification: Json) -> str:
    return (
        "whsec_" + base64.b64encode(b"another key").decode() if verification["scheme"] == "STANDARD" else "another key"
    )


async def send(
    api: httpx.AsyncClient, endpoint: Json, body: Any = None, headers: Mapping[str, str] | None = None, **request: Any
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    given = {"Content-Type": "application/json", **(headers or {})}
    method = request.pop("method", "POST")
    path = request.pop("path", None) or endpoint["path"]
    return await api.request(method, f"/hooks/{path}", content=content, headers=given, **request)


async def event_of(database: Database, response: httpx.Response) -> TriggerEvent:
    async with database.transaction() as session:
        event = await session.get(TriggerEvent, UUID(response.json()["eventRecordId"]))
    assert event is not None
    return event


async def deliveries(api: httpx.AsyncClient, endpoint: Json) -> Json:
    found: Json = (await ok(await api.get(f"/webhook-endpoints/{endpoint['id']}")))["deliveries"]
    return found


async def test_a_webhook_is_kept_as_an_event_before_it_is_acknowledged(
    api: httpx.AsyncClient, database: Database
) -> None:
    unique = uuid4().hex
    endpoint = await webhook(api, path=f"{unique}/{{shop}}", triggerKey="order_came", methods=["POST", "PUT"])
    response = await send(
        api,
        endpoint,
        {"id": 7},
        {"X-Shop": "north", "Cookie": "a=b", "Authorization": "Basic x", "X-Api-Key": "y"},
        path=f"{unique}/n%20w",
        params={"a": "1", "b": ["2", "3"], "c": ""},
        method="PUT",
    )
    assert set(await ok(response, 202)) == {"eventRecordId"}
    event = await event_of(database, response)
    assert (event.source, event.trigger_key, event.template_id) == ("webhook", "order_came", None)
    assert event.summary == f"PUT /hooks/{unique}/n w · Orders"
    payload = event.payload
    assert payload["method"] == "PUT"
    assert payload["path"] == f"/hooks/{unique}/n w"
    assert payload["params"] == {"shop": "n w"}
    assert payload["query"] == {"a": "1", "b": ["2", "3"], "c": ""}
    assert payload["body"] == {"id": 7}
    assert payload["headers"]["x-shop"] == "north"
    assert not {"cookie", "authorization", "x-api-key"} & set(payload["headers"])


async def test_a_webhook_may_start_a_template_outright(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    endpoint = await webhook(api, template=template["slug"])
    assert endpoint["templateId"] == template["id"]
    event = await event_of(database, await send(api, endpoint, {"id": 7}))
    assert str(event.template_id) == template["id"]
    assert event.payload["context"]["body"] == {"id": 7}


@each_scheme
async def test_what_is_rightly_signed_is_taken_and_its_proof_is_not_kept(
    api: httpx.AsyncClient, database: Database, verification: Json, sign: Signer
) -> None:
    endpoint = await webhook(api, verification=verification, secret=secret_of(verification))
    body = json.dumps({"id": uuid4().hex, "type": "invoice.paid"}).encode()
    headers = sign(body, secret_of(verification), time.time())
    response = await send(api, endpoint, body, headers)
    assert response.status_code == 202, response.text
    event = await event_of(database, response)
    text = json.dumps([event.payload, event.headers, event.summary])
    assert secret_of(verification) not in text
    assert not {"signature", "token", "authorization"} & {
        part for name in event.payload["headers"] for part in name.split("-")
    }
    assert secret_of(verification) not in json.dumps(endpoint)


@each_scheme
async def test_what_is_wrongly_signed_is_refused_without_a_hint(
    api: httpx.AsyncClient, verification: Json, sign: Signer
) -> None:
    endpoint = await webhook(api, verification=verification, secret=secret_of(verification))
    right, now = secret_of(verification), time.time()
    attempts = [
        await send(api, endpoint, b"{}", sign(b"{}", other_secret_of(verification), now)),
        await send(api, endpoint, b"{}"),
        await send(api, endpoint, b"{}", dict.fromkeys(sign(b"{}", right, now), "x")),
        await send(api, endpoint, b"{}", dict.fromkeys(sign(b"{}", right, now), "")),
    ]
    if verification["scheme"] != "TOKEN":
        attempts.append(await send(api, endpoint, b"{} ", sign(b"{}", right, now)))
    told = {json.dumps(refused(attempt, 401, "SIGNATURE_INVALID")) for attempt in attempts}
    assert len(told) == 1
    counts = await deliveries(api, endpoint)
    assert counts["accepted"] == 0
    assert counts["refused"]["SIGNATURE_WRONG"] >= 1
    assert counts["refused"]["SIGNATURE_MISSING"] >= 1


@each_timed
@pytest.mark.parametrize("away", [-310, 310])
async def test_what_was_signed_too_long_ago_is_refused(
    api: httpx.AsyncClient, verification: Json, sign: Signer, away: int
) -> None:
    endpoint = await webhook(api, verification=verification, secret=secret_of(verification))
    headers = sign(b"{}", secret_of(verification), time.time() + away)
    refused(await send(api, endpoint, b"{}", headers), 401, "SIGNATURE_INVALID")
    assert (await deliveries(api, endpoint))["refused"] == {"SIGNATURE_EXPIRED": 1}


async def test_an_endpoint_without_a_secret_refuses_everything_until_it_has_one(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, verification={"scheme": "GITHUB"})
    assert endpoint["secretSet"] is False
    refused(await send(api, endpoint, b"{}", github(b"{}", "", 0)), 401, "SIGNATURE_INVALID")
    assert (await deliveries(api, endpoint))["refused"] == {"SECRET_MISSING": 1}
    path = f"/webhook-endpoints/{endpoint['id']}/rotate-secret"
    assert (await ok(await api.post(path, json={"secret": SECRET})))["secretSet"] is True
    await ok(await send(api, endpoint, b"{}", github(b"{}", SECRET, 0)), 202)


async def test_while_a_secret_is_replaced_both_are_good_for_as_long_as_was_said(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, verification={"scheme": "GITHUB"}, secret=SECRET)
    path = f"/webhook-endpoints/{endpoint['id']}/rotate-secret"
    rotated = await ok(await api.post(path, json={"secret": "the next one", "keepPreviousFor": "PT2S"}))
    assert rotated["previousSecretUntil"] is not None
    for secret in (SECRET, "the next one"):
        await ok(await send(api, endpoint, b"{}", github(b"{}", secret, 0)), 202)
    await asyncio.sleep(2.1)
    refused(await send(api, endpoint, b"{}", github(b"{}", SECRET, 0)), 401, "SIGNATURE_INVALID")
    rotated = await ok(await api.post(path, json={"secret": "the third one", "keepPreviousFor": 0}))
    assert rotated["previousSecretUntil"] is None
    refused(await send(api, endpoint, b"{}", github(b"{}", "the next one", 0)), 401, "SIGNATURE_INVALID")
    await ok(await send(api, endpoint, b"{}", github(b"{}", "the third one", 0)), 202)


@pytest.mark.parametrize("at_once", [50])
async def test_one_delivery_sent_many_times_at_once_is_one_event(
    api: httpx.AsyncClient, database: Database, at_once: int
) -> None:
    endpoint = await webhook(api, verification={"scheme": "STANDARD"}, secret=STANDARD_SECRET)
    body = b'{"id": 1}'
    headers = standard(body, STANDARD_SECRET, time.time(), "msg_the_same")
    answers = await asyncio.gather(*(send(api, endpoint, body, headers) for _ in range(at_once)))
    assert sorted(answer.status_code for answer in answers) == [200] * (at_once - 1) + [202]
    assert len({answer.text for answer in answers}) == 1
    assert (await event_of(database, answers[0])).times == at_once
    counts = await deliveries(api, endpoint)
    assert (counts["received"], counts["accepted"], counts["repeated"]) == (at_once, 1, at_once - 1)
    assert counts["refused"] == {}


async def test_a_repetition_is_the_same_event_though_its_sender_changed_it(
    api: httpx.AsyncClient, database: Database
) -> None:
    endpoint = await webhook(api, verification={"scheme": "STRIPE"}, secret=SECRET)
    first, again = (b'{"id": "evt_1", "pending_webhooks": %d}' % count for count in (2, 1))
    taken = await send(api, endpoint, first, stripe(first, SECRET, time.time()))
    repeated = await send(api, endpoint, again, stripe(again, SECRET, time.time()))
    assert (taken.status_code, repeated.status_code) == (202, 200)
    assert (await event_of(database, repeated)).payload["body"]["pending_webhooks"] == 2


@pytest.mark.parametrize(
    ("dedupe", "same", "other"),
    [
        ({"header": "X-Id"}, {"X-Id": "1"}, {"X-Id": "2"}),
        (
            {"value": {"type": "expr", "expr": {"src": "__trigger__.headers.`x-id` & '!'"}}},
            {"X-Id": "1"},
            {"X-Id": "2"},
        ),
        ({"header": "X-Id"}, {"X-Id": "1" * 3000}, {"X-Id": "1" * 2999}),
        (None, {"Idempotency-Key": "a"}, {"Idempotency-Key": "b"}),
    ],
)
async def test_an_endpoint_says_what_repetitions_have_in_common(
    api: httpx.AsyncClient, dedupe: Json | None, same: Json, other: Json
) -> None:
    endpoint = await webhook(api, dedupe=dedupe)
    answers = [await send(api, endpoint, {}, headers) for headers in (same, same, other)]
    assert [answer.status_code for answer in answers] == [202, 200, 202]


async def test_a_slack_command_sent_again_is_the_same_event_and_one_given_again_is_not(
    api: httpx.AsyncClient, database: Database
) -> None:
    endpoint = await webhook(api, verification={"scheme": "SLACK"}, secret=SECRET)
    body, now = b"command=%2Fdeploy&text=", time.time()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answers = [await send(api, endpoint, body, slack(body, SECRET, at) | form) for at in (now, now, now + 1)]
    assert [answer.status_code for answer in answers] == [202, 200, 202]
    event = await event_of(database, answers[0])
    assert event.summary.endswith(" · slack /deploy")
    assert slack(body, SECRET, now)["X-Slack-Signature"] not in event.dedupe_key


async def test_without_an_id_each_delivery_is_an_event_of_its_own(api: httpx.AsyncClient) -> None:
    failing = {"value": {"type": "expr", "expr": {"src": "__trigger__.body.nothing.at.all"}}}
    for endpoint in (
        await webhook(api),
        await webhook(api, dedupe={"header": "X-Id"}),
        await webhook(api, dedupe=failing),
    ):
        answers = [await send(api, endpoint, {"same": True}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]


async def test_two_endpoints_may_use_the_same_ids(api: httpx.AsyncClient) -> None:
    for endpoint in (await webhook(api), await webhook(api)):
        await ok(await send(api, endpoint, {}, {"Idempotency-Key": "the same"}), 202)


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
