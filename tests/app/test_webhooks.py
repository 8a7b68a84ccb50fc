"""What comes in at `/hooks/…`, over real HTTP: taken once, or refused for one reason."""

import asyncio
import json
import time
from uuid import uuid4

import httpx
import pytest

from app.db.session import Database
from tests.app.scenes import Json, active_template, ok, refused, webhook
from tests.app.webhook_senders import (
    SECRET,
    STANDARD_SECRET,
    Signer,
    deliveries,
    each_scheme,
    each_timed,
    event_of,
    github,
    other_secret_of,
    secret_of,
    send,
    slack,
    standard,
    stripe,
)


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
    endpoint = await webhook(api, templateId=template["slug"])
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
