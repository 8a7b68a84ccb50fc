"""Every change of a template, a version or a link is in the audit: who, what, and what was there before and after."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from app.contracts import schedule_id_of
from app.db.session import Database
from tests.app.clockwork import HOURLY, create_schedule
from tests.app.scenes import PLAIN, Json, active_template, link, ok, refused, webhook

ANN = {"X-Millrace-Actor": "ann"}


async def audited(api: httpx.AsyncClient, kind: str, entity_id: str) -> list[tuple[str, str, Any, Any]]:
    """What was done to something, the earliest first."""
    found = await ok(await api.get("/audit", params={"entityKind": kind, "entityId": entity_id}))
    return [(one["action"], one["actor"], one["before"], one["after"]) for one in reversed(found["items"])]


async def template_of(api: httpx.AsyncClient, name: str) -> Json:
    return await ok(await api.post("/templates", json={"name": name}, headers=ANN), 201)


async def test_the_life_of_a_template_is_audited(api: httpx.AsyncClient) -> None:
    template = await template_of(api, "Audited one")
    path = f"/templates/{template['id']}"
    await ok(await api.patch(path, json={"name": "Other", "category": "x"}, headers=ANN))
    await ok(await api.patch(path, json={"name": "Other"}, headers=ANN))
    await ok(await api.post(f"{path}/archive", headers=ANN))
    await ok(await api.post(f"{path}/resume", headers=ANN))
    refused(await api.post(f"{path}/pause", headers=ANN), 409, "TEMPLATE_NOT_ACTIVE")
    assert (await api.delete(path, headers=ANN)).status_code == 204
    created, changed, archived, resumed, deleted = await audited(api, "TEMPLATE", template["id"])
    assert created[:3] == ("CREATE_TEMPLATE", "ann", None)
    assert (created[3]["slug"], created[3]["status"]) == ("audited-one", "DRAFT")
    before, after = {"name": "Audited one", "category": None}, {"name": "Other", "category": "x"}
    assert changed == ("CHANGE_TEMPLATE", "ann", before, after)
    assert archived == ("ARCHIVE_TEMPLATE", "ann", {"status": "DRAFT"}, {"status": "ARCHIVED"})
    assert resumed == ("RESUME_TEMPLATE", "ann", {"status": "ARCHIVED"}, {"status": "DRAFT"})
    assert (deleted[0], deleted[2]["name"], deleted[3]) == ("DELETE_TEMPLATE", "Other", None)


async def test_what_goes_with_a_template_is_audited_and_gone_from_temporal(
    api: httpx.AsyncClient, worker_client: Client
) -> None:
    template = await active_template(api)
    mine = {"templateId": template["id"]}
    schedules = [await create_schedule(api, HOURLY, mine | {"context": {}}) for _ in range(2)]
    kept = await create_schedule(api, HOURLY)
    body = mine | {"triggerKey": "test.tick"}
    subscription = await ok(await api.post("/subscriptions", json=body), 201)
    entity = await link(api, template)
    hook = {
        "name": "In",
        "path": f"in-{uuid4().hex}",
        "verification": {"scheme": "TOKEN"},
        "secret": "a secret of ours",
    }
    hook |= mine
    endpoint = await ok(await api.post("/webhook-endpoints", json=hook), 201)
    assert (await api.delete(f"/templates/{template['id']}", headers=ANN)).status_code == 204
    went = [("SCHEDULE", one["id"], "DELETE_SCHEDULE") for one in schedules]
    went += [("SUBSCRIPTION", subscription["id"], "DELETE_SUBSCRIPTION"), ("LINK", entity, "UNLINK")]
    went += [("WEBHOOK_ENDPOINT", endpoint["id"], "DELETE_WEBHOOK_ENDPOINT")]
    for kind, subject, action in went:
        deleted = (await audited(api, kind, subject))[-1]
        assert (deleted[:2], deleted[3]) == ((action, "ann"), None), kind
        assert template["id"] in str(deleted[2])
    for one in schedules:
        with pytest.raises(RPCError) as missing:
            await worker_client.get_schedule_handle(schedule_id_of(one["id"])).describe()
        assert missing.value.status == RPCStatusCode.NOT_FOUND
    await worker_client.get_schedule_handle(schedule_id_of(kept["id"])).describe()


async def test_what_is_given_to_another_template_at_that_moment_does_not_go_with_it(
    api: httpx.AsyncClient, database: Database
) -> None:
    template, other = await active_template(api), await active_template(api)
    entity = await link(api, template)
    endpoint = await webhook(api, templateId=template["id"])
    row = {"id": endpoint["id"], "template": other["id"], "entity": entity}
    async with database.transaction() as session:
        await session.execute(text("UPDATE webhook_endpoint SET template_id = :template WHERE id = :id"), row)
        moved = "UPDATE workflow_template_link SET template_id = :template WHERE entity_id = :entity"
        await session.execute(text(moved), row)
        deleting = asyncio.create_task(api.delete(f"/templates/{template['id']}", headers=ANN))
        await asyncio.wait([deleting], timeout=0.5)
    assert (await deleting).status_code == 204
    assert (await ok(await api.get(f"/webhook-endpoints/{endpoint['id']}")))["templateId"] == other["id"]
    assert [one[0] for one in await audited(api, "LINK", entity)] == ["LINK"]


async def test_what_goes_with_a_template_stays_when_it_does(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    schedule = await create_schedule(api, HOURLY, {"templateId": template["id"], "context": {}})
    await ok(await api.post(f"/templates/{template['id']}/execute", json={"context": {}}), 202)
    refused(await api.delete(f"/templates/{template['id']}", headers=ANN), 409, "TEMPLATE_IN_USE")
    assert [one[0] for one in await audited(api, "SCHEDULE", schedule["id"])] == ["CREATE_SCHEDULE"]
    await ok(await api.get(f"/schedules/{schedule['id']}/next"))


async def test_the_life_of_a_version_is_audited(api: httpx.AsyncClient) -> None:
    template = await template_of(api, "Audited two")
    path = f"/templates/{template['id']}/versions"
    version = await ok(await api.post(path, json={"version": "1.0.0"}, headers=ANN), 201)
    other = await ok(await api.post(path, json={"version": "2.0.0"}, headers=ANN), 201)
    here = f"/versions/{version['id']}"
    await ok(await api.patch(here, json={"definition": PLAIN}, headers=ANN))
    for deed in ("publish", "activate"):
        await ok(await api.post(f"{here}/{deed}", headers=ANN))
    await ok(await api.post(f"/versions/{other['id']}/publish", headers=ANN))
    await ok(await api.post(f"/versions/{other['id']}/activate", headers=ANN))
    await ok(await api.post(f"{here}/deprecate", headers=ANN))
    created, changed, published, activated, deprecated = await audited(api, "VERSION", version["id"])
    assert (created[0], created[3]["template"], created[3]["version"]) == ("CREATE_VERSION", "audited-two", "1.0.0")
    assert (changed[0], set(changed[2])) == ("CHANGE_VERSION", {"definitionHash"})
    assert changed[2] != changed[3]
    assert published == ("PUBLISH_VERSION", "ann", {"status": "DRAFT"}, {"status": "PUBLISHED"})
    before = {"activeVersionId": None, "templateStatus": "DRAFT"}
    after = {"activeVersionId": version["id"], "templateStatus": "ACTIVE"}
    assert activated == ("ACTIVATE_VERSION", "ann", before, after)
    assert deprecated == ("DEPRECATE_VERSION", "ann", {"status": "PUBLISHED"}, {"status": "DEPRECATED"})
    second = await audited(api, "VERSION", other["id"])
    assert second[-1][2:] == ({"activeVersionId": version["id"]}, {"activeVersionId": other["id"]})
    draft = await ok(await api.post(path, json={"version": "3.0.0"}, headers=ANN), 201)
    assert (await api.delete(f"/versions/{draft['id']}", headers=ANN)).status_code == 204
    assert [one[0] for one in await audited(api, "VERSION", draft["id"])] == ["CREATE_VERSION", "DELETE_VERSION"]


async def test_links_are_audited(api: httpx.AsyncClient) -> None:
    template = await template_of(api, "Audited three")
    path, body = "/links/PRODUCT/audited-product", {"templateId": template["id"]}
    await ok(await api.put(path, json=body, headers=ANN), 201)
    await ok(await api.put(path, json=body, headers=ANN))
    assert (await api.delete(path, headers={"X-Millrace-Actor": "bob"})).status_code == 204
    fact = {"entityType": "PRODUCT", "templateId": template["id"], "template": "audited-three"}
    found = await audited(api, "LINK", "audited-product")
    assert found == [("LINK", "ann", None, fact), ("UNLINK", "bob", fact, None)]
