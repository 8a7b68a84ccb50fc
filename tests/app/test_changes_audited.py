"""Every change of a template, a version or a link is in the audit: who, what, and what was there before and after."""

from typing import Any

import httpx

from tests.app.scenes import PLAIN, Json, ok, refused

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
