"""`/webhook-endpoints`: what may be an endpoint, and that its secret is seen by nobody again."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from app.db.session import Database
from app.settings import SecretsSettings, Settings
from app.temporal import Temporal
from app.webhooks.queries import find_keys
from tests.app.clockwork import until
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, ok, refused, webhook

SECRET = "It's a Secret to Everybody"
ANN = {"X-Millrace-Actor": "ann"}


async def test_the_life_of_an_endpoint_is_audited_and_its_secret_is_not(
    api: httpx.AsyncClient, database: Database
) -> None:
    body = {"name": "Orders", "path": f"a-{uuid4().hex}", "verification": {"scheme": "GITHUB"}, "secret": SECRET}
    endpoint = await ok(await api.post("/webhook-endpoints", json=body, headers=ANN), 201)
    path = f"/webhook-endpoints/{endpoint['id']}"
    assert endpoint["address"] == f"/api/v1/hooks/{endpoint['path']}"
    assert (endpoint["secretSet"], endpoint["verification"]) == (True, {"scheme": "GITHUB"})
    await ok(await api.patch(path, json={"name": "Other", "methods": ["PUT"], "enabled": False}, headers=ANN))
    rotation = {"secret": SECRET + "!", "keepPreviousFor": "PT1H"}
    await ok(await api.post(f"{path}/rotate-secret", json=rotation, headers=ANN))
    found = await ok(await api.get(path))
    assert (found["name"], found["methods"], found["enabled"]) == ("Other", ["PUT"], False)
    assert found["deliveries"] == {
        "received": 0, "accepted": 0, "repeated": 0, "refused": {}, "lastAt": None, "lastResult": None,
    }  # fmt: skip
    assert (await api.delete(path, headers=ANN)).status_code == 204
    refused(await api.get(path), 404, "WEBHOOK_ENDPOINT_NOT_FOUND")
    query = {"entityKind": "WEBHOOK_ENDPOINT", "entityId": endpoint["id"]}
    audit = (await ok(await api.get("/audit", params=query)))["items"]
    assert [one["action"] for one in reversed(audit)] == [
        "CREATE_WEBHOOK_ENDPOINT", "CHANGE_WEBHOOK_ENDPOINT", "ROTATE_WEBHOOK_SECRET", "DELETE_WEBHOOK_ENDPOINT",
    ]  # fmt: skip
    assert {one["actor"] for one in audit} == {"ann"}
    assert SECRET not in json.dumps([audit, endpoint, found])
    async with database.transaction() as session:
        stored = await session.execute(text("SELECT row_to_json(e)::text FROM audit_event e"))
        assert SECRET not in "".join(stored.scalars())


async def test_a_secret_is_encrypted_in_the_database(api: httpx.AsyncClient, database: Database) -> None:
    endpoint = await webhook(api, verification={"scheme": "GITHUB"}, secret=SECRET)
    async with database.transaction() as session:
        found = await session.execute(
            text("SELECT row_to_json(e)::text FROM webhook_endpoint e WHERE id = :id"), {"id": endpoint["id"]}
        )
        row = found.scalar_one()
    assert SECRET not in row
    assert json.loads(row)["secret"].startswith("gAAAA")


async def test_without_a_key_no_secret_is_stored_and_no_signature_is_believed(
    serve: Serve, api: httpx.AsyncClient, settings: Settings, database: Database, temporal: Temporal
) -> None:
    keyless = await serve(settings.model_copy(update={"secrets": SecretsSettings()}), database, temporal)
    body = {"name": "Orders", "path": f"k-{uuid4().hex}", "verification": {"scheme": "GITHUB"}, "secret": SECRET}
    refused(await keyless.post("/webhook-endpoints", json=body), 422, "SECRETS_KEY_MISSING")
    endpoint = await ok(await api.post("/webhook-endpoints", json=body), 201)
    refused(await keyless.post(f"/hooks/{endpoint['path']}"), 503, "SECRET_UNREADABLE")
    await webhook(keyless)


async def test_an_endpoint_brings_its_trigger_unless_there_is_one(api: httpx.AsyncClient, database: Database) -> None:
    key = f"key_{uuid4().hex}"
    endpoint = await webhook(api, name="First", triggerKey=key)
    await webhook(api, name="Second", triggerKey=key)
    await ok(await api.patch(f"/webhook-endpoints/{endpoint['id']}", json={"triggerKey": f"{key}_2"}))
    unnamed = await webhook(api, path=f"Shop/{uuid4().hex}/{{id}}", triggerKey=None)
    assert unnamed["triggerKey"].startswith("webhook_shop_")
    async with database.transaction() as session:
        found = await session.execute(
            text("SELECT key, name, category FROM trigger_definition WHERE category = 'webhook'")
        )
        triggers = {row.key: row.name for row in found}
    assert triggers[key] == "First"
    assert {f"{key}_2", unnamed["triggerKey"]} <= triggers.keys()


async def test_endpoints_with_paths_that_are_alike_have_triggers_of_their_own(api: httpx.AsyncClient) -> None:
    top = uuid4().hex
    paths = (f"{top}/*", f"{top}/**", f"{top}/id", f"{top}-id", f"{top}_id")
    made = [await webhook(api, path=path) for path in paths]
    stem = f"webhook_{top}"
    assert [one["triggerKey"] for one in made] == [stem, f"{stem}_2", f"{stem}_id", f"{stem}_id_2", f"{stem}_id_3"]
    template = await active_template(api)
    await ok(await api.post("/subscriptions", json={"templateId": template["id"], "triggerKey": stem}), 201)
    taken = await ok(await api.post(f"/hooks/{top}/a/b", json={}), 202)

    async def settled() -> Json | None:
        event = await ok(await api.get(f"/trigger-events/{taken['eventRecordId']}"))
        return None if event["status"] == "PENDING" else event

    event = await until(settled)
    assert (event["triggerKey"], event["status"]) == (f"{stem}_2", "UNMATCHED")
    # The trigger stays when its endpoint goes, and is found again with what subscribes to it.
    await api.delete(f"/webhook-endpoints/{made[0]['id']}")
    assert (await webhook(api, path=paths[0]))["triggerKey"] == stem


async def test_keys_are_chosen_one_after_the_other_also_of_paths_that_are_not_alike(database: Database) -> None:
    """The second endpoint of `orders` is `webhook_orders_2`, which is the first choice of the path `orders/2`."""
    stem = f"webhook_{uuid4().hex}"

    async def ask() -> frozenset[str]:
        async with database.transaction() as session:
            return await find_keys(session, f"{stem}_2")

    async with database.transaction() as session:
        await find_keys(session, stem)
        asking = asyncio.create_task(ask())
        done, _ = await asyncio.wait([asking], timeout=0.3)
        assert not done
    assert await asking == frozenset()


async def test_subscriptions_to_an_endpoint_can_be_narrowed_by_method_and_path(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, path=f"{uuid4().hex}/**", methods=["POST", "PUT"])
    template = await active_template(api)
    body = {"templateId": template["id"], "triggerKey": endpoint["triggerKey"]}
    properties = {"methods": ["PUT"], "path": "*/orders"}
    made = await ok(await api.post("/subscriptions", json=body | {"properties": properties}), 201)
    assert made["properties"] == properties
    wrong = await api.post("/subscriptions", json=body | {"properties": {"methods": ["TRACE"]}})
    refused(wrong, 422, "PROPERTIES_INVALID")


async def test_endpoints_are_listed_page_by_page_the_newest_first(api: httpx.AsyncClient) -> None:
    key = f"key_{uuid4().hex}"
    made = [(await webhook(api, triggerKey=key))["id"] for _ in range(3)]
    page = await ok(await api.get("/webhook-endpoints", params={"triggerKey": key, "limit": 2}))
    rest = await ok(await api.get("/webhook-endpoints", params={"triggerKey": key, "cursor": page["nextCursor"]}))
    assert [one["id"] for one in page["items"] + rest["items"]] == made[::-1]
    assert rest["nextCursor"] is None


async def test_two_endpoints_cannot_mean_the_same_paths(api: httpx.AsyncClient) -> None:
    top = uuid4().hex
    await webhook(api, path=f"{top}/{{id}}")
    body = {"name": "x", "path": f"/{top}/{{number}}/", "verification": {"scheme": "NONE"}}
    refused(await api.post("/webhook-endpoints", json=body), 409, "PATH_TAKEN")
    other = await webhook(api)
    refused(await api.patch(f"/webhook-endpoints/{other['id']}", json={"path": f"{top}/*"}), 409, "PATH_TAKEN")


async def test_a_secret_must_fit_the_scheme_as_it_is_and_as_it_becomes(api: httpx.AsyncClient) -> None:
    endpoint = await webhook(api, verification={"scheme": "GITHUB"}, secret=SECRET)
    path = f"/webhook-endpoints/{endpoint['id']}"
    refused(await api.patch(path, json={"verification": {"scheme": "STANDARD"}}), 422, "SECRET_INVALID")
    refused(await api.post(f"{path}/rotate-secret", json={"secret": "short"}), 422, "SECRET_INVALID")
    changed = await ok(await api.patch(path, json={"verification": {"scheme": "SLACK", "toleranceSeconds": 60}}))
    assert changed["verification"] == {"scheme": "SLACK", "toleranceSeconds": 60}
    assert changed["secretSet"] is True
    assert (await ok(await api.patch(path, json={"verification": {"scheme": "NONE"}})))["secretSet"] is False


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"path": "a//b"}, "PATH_INVALID"),
        ({"verification": None}, "REQUEST_INVALID"),
        ({"verification": {"scheme": "HMAC"}}, "REQUEST_INVALID"),
        ({"verification": {"scheme": "GITHUB", "algorithm": "sha1"}}, "REQUEST_INVALID"),
        ({"verification": {"scheme": "STANDARD"}, "secret": "whsec_no base64"}, "SECRET_INVALID"),
        ({"secret": "a secret of nobody"}, "SECRET_INVALID"),
        ({"methods": []}, "REQUEST_INVALID"),
        ({"methods": ["OPTIONS"]}, "REQUEST_INVALID"),
        ({"requiredHeaders": {"no name": None}}, "REQUEST_INVALID"),
        ({"maxBytes": 11_000_000}, "WEBHOOK_LIMIT"),
        ({"response": {"mode": "SYNC", "timeoutSeconds": 600}}, "WEBHOOK_LIMIT"),
        ({"response": {"mode": "ASYNC", "status": 200}}, "REQUEST_INVALID"),
        ({"response": {"mode": "CUSTOM", "headers": {"Set-Cookie": "a=b"}}}, "REQUEST_INVALID"),
        ({"response": {"mode": "CUSTOM", "headers": {"X-A": "a\nb"}}}, "REQUEST_INVALID"),
        ({"response": {"mode": "CUSTOM", "body": {"type": "expr", "expr": {"src": "1 +"}}}}, "VALUE_INVALID"),
        ({"response": {"mode": "CUSTOM", "body": {"type": "expr", "expr": {"src": "__context__.a"}}}}, "VALUE_INVALID"),
        ({"dedupe": {}}, "REQUEST_INVALID"),
        ({"dedupe": {"header": "X-Id", "value": 1}}, "REQUEST_INVALID"),
        ({"rateLimit": {"requests": 0}}, "REQUEST_INVALID"),
        ({"triggerKey": "no/key"}, "REQUEST_INVALID"),
    ],
)
async def test_what_cannot_be_an_endpoint_is_refused(api: httpx.AsyncClient, fields: Json, code: str) -> None:
    body: dict[str, Any] = {"name": "x", "path": f"r-{uuid4().hex}", "verification": {"scheme": "NONE"}, **fields}
    answer = refused(await api.post("/webhook-endpoints", json=body), 422, code)
    assert "a secret of nobody" not in json.dumps(answer)


async def test_a_template_that_is_not_there_cannot_be_started(api: httpx.AsyncClient) -> None:
    body = {"name": "x", "path": f"t-{uuid4().hex}", "verification": {"scheme": "NONE"}, "templateId": "nobody-s"}
    refused(await api.post("/webhook-endpoints", json=body), 404, "TEMPLATE_NOT_FOUND")
