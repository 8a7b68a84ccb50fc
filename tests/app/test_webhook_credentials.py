"""What a sender proves itself with is in nothing that is kept: neither signatures nor demanded values of headers."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from app.db.session import Database
from tests.app.scenes import active_template, ok, refused, webhook

DEMANDED = "a value that the two share"
OTHER = "and the one that comes after it"
REQUIRED = {"X-Partner": DEMANDED, "X-Kind": None}
KEPT = ["trigger_event", "audit_event", "workflow_execution", "trigger_delivery", "trigger_definition"]


async def kept(database: Database) -> str:
    """Everything that is stored of events and deeds, as text."""
    found = []
    async with database.transaction() as session:
        for table in KEPT:
            found += (await session.execute(text(f"SELECT row_to_json(t)::text FROM {table} t"))).scalars()
    return "".join(found)


async def test_the_demanded_value_of_a_header_is_not_kept_with_the_event(
    api: httpx.AsyncClient, database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    template = await active_template(api)
    endpoint = await webhook(api, requiredHeaders=REQUIRED, template=template["id"])
    address, sent = f"/hooks/{endpoint['path']}", {"x-partner": DEMANDED, "X-Kind": "order"}
    refused(await api.post(address, headers={"X-Partner": "no", "X-Kind": "order"}), 400, "HEADER_REQUIRED")
    taken = await ok(await api.post(address, json={}, headers=sent), 202)
    event = await ok(await api.get(f"/trigger-events/{taken['eventRecordId']}"))
    assert event["payload"]["context"]["headers"]["x-kind"] == "order"
    assert "x-partner" not in event["payload"]["context"]["headers"]
    assert DEMANDED not in await kept(database)
    assert DEMANDED not in "".join(capfd.readouterr())


async def test_an_endpoint_says_which_values_it_demands_to_nobody_and_audits_their_change(
    api: httpx.AsyncClient, database: Database
) -> None:
    endpoint = await webhook(api, requiredHeaders=REQUIRED)
    path = f"/webhook-endpoints/{endpoint['id']}"
    assert endpoint["requiredHeaders"] == {"X-Partner": True, "X-Kind": False}
    changed = await ok(await api.patch(path, json={"requiredHeaders": REQUIRED | {"X-Partner": OTHER}}))
    found = [endpoint, changed, await ok(await api.get(path)), await ok(await api.get("/webhook-endpoints"))]
    assert (await api.delete(path)).status_code == 204
    query = {"entityKind": "WEBHOOK_ENDPOINT", "entityId": endpoint["id"]}
    deeds = (await ok(await api.get("/audit", params=query)))["items"]
    (change,) = [deed for deed in deeds if deed["action"] == "CHANGE_WEBHOOK_ENDPOINT"]
    assert change["before"] == {"requiredHeaders": {"X-Partner": "DEMANDED", "X-Kind": "ANY"}}
    assert change["after"] == {"requiredHeaders": {"X-Partner": "REPLACED", "X-Kind": "ANY"}}
    for value in (DEMANDED, OTHER):
        assert value not in json.dumps([found, deeds])
        assert value not in await kept(database)


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_trigger_that_is_tried_with_a_real_request_keeps_no_more_than_the_endpoint_would(
    api: httpx.AsyncClient, database: Database, dry_run: bool
) -> None:
    endpoint = await webhook(api, requiredHeaders=REQUIRED, triggerKey=f"k-{uuid4().hex}")
    template = await active_template(api)
    body: Any = {"templateId": template["id"], "triggerKey": endpoint["triggerKey"]}
    await ok(await api.post("/subscriptions", json=body), 201)
    headers = {"X-Partner": DEMANDED, "Authorization": "Bearer abc-def", "X-Kind": "order"}
    asked = {"payload": {"method": "POST", "headers": headers, "body": None}, "dryRun": dry_run}
    answer = await api.post(f"/registry/triggers/{endpoint['triggerKey']}/test", json=asked)
    told = await ok(answer, 200 if dry_run else 202)
    if dry_run:
        assert told["subscriptions"][0]["context"]["headers"] == {"X-Kind": "order"}
    stored = json.dumps(told) + await kept(database)
    assert DEMANDED not in stored
    assert "abc-def" not in stored


async def test_a_trigger_that_is_no_webhooks_is_tried_with_the_payload_as_it_is(api: httpx.AsyncClient) -> None:
    asked = {"payload": {"headers": {"X-Token": "a"}}}
    made = await ok(await api.post("/registry/triggers/manual/test", json=asked), 202)
    event = await ok(await api.get(f"/trigger-events/{made['eventRecordId']}"))
    assert event["payload"] == asked["payload"]
