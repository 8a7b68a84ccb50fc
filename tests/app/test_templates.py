"""Templates and links over HTTP."""

from uuid import uuid4

import httpx
import pytest
from temporalio.converter import DataConverter

from app.db.session import Database
from tests.app.scenes import (
    Json,
    activate,
    active_template,
    create_draft,
    create_template,
    link,
    ok,
    publish,
    purchase,
    refused,
)
from tests.app.tiny_workflow import running_worker


async def test_a_new_template_is_a_draft_with_a_slug_made_of_its_name(api: httpx.AsyncClient) -> None:
    template = await ok(await api.post("/templates", json={"name": "Permit: Größe ändern!"}), 201)
    assert template["slug"] == "permit-grosse-andern"
    assert template["status"] == "DRAFT"
    assert template["activeVersionId"] is None
    assert template["tags"] == []


@pytest.mark.parametrize("slug", ["Has-Capitals", "dots.are.out", "-dash-first", "", "a" * 101, "under_score"])
async def test_a_slug_of_another_form_is_refused(api: httpx.AsyncClient, slug: str) -> None:
    problem = refused(await api.post("/templates", json={"name": "N", "slug": slug}), 422, "REQUEST_INVALID")
    assert problem["problems"][0]["path"] == "body.slug"


async def test_a_slug_that_looks_like_an_id_is_refused(api: httpx.AsyncClient) -> None:
    refused(await api.post("/templates", json={"name": "N", "slug": str(uuid4())}), 422, "SLUG_INVALID")


async def test_a_name_without_letters_needs_a_slug(api: httpx.AsyncClient) -> None:
    refused(await api.post("/templates", json={"name": "漢字"}), 422, "SLUG_INVALID")


async def test_a_slug_is_unique(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    answer = await api.post("/templates", json={"name": "Other", "slug": template["slug"]})
    refused(answer, 409, "SLUG_TAKEN")
    other = await create_template(api)
    answer = await api.patch(f"/templates/{other['id']}", json={"slug": template["slug"]})
    refused(answer, 409, "SLUG_TAKEN")


async def test_a_template_is_found_by_id_and_by_slug(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    assert await ok(await api.get(f"/templates/{template['id']}")) == template
    assert await ok(await api.get(f"/templates/{template['slug']}")) == template


@pytest.mark.parametrize("reference", ["0198c0de-0000-7000-8000-000000000000", "no-such-template", "%20", "a.b"])
async def test_an_unknown_template_is_not_found(api: httpx.AsyncClient, reference: str) -> None:
    refused(await api.get(f"/templates/{reference}"), 404, "TEMPLATE_NOT_FOUND")


async def test_a_change_leaves_alone_what_it_does_not_name(api: httpx.AsyncClient) -> None:
    template = await create_template(api, segment="CRM", tags=["a"], description="d")
    changed = await ok(await api.patch(f"/templates/{template['id']}", json={"segment": None, "pinned": True}))
    assert (changed["segment"], changed["pinned"]) == (None, True)
    assert (changed["tags"], changed["description"]) == (["a"], "d")
    assert changed["updatedAt"] > template["updatedAt"]


@pytest.mark.parametrize(
    "change", [{"name": None}, {"tags": None}, {"colour": "red"}, {"status": "ACTIVE"}, {"name": ""}]
)
async def test_a_change_of_the_wrong_shape_is_refused(api: httpx.AsyncClient, change: Json) -> None:
    template = await create_template(api)
    refused(await api.patch(f"/templates/{template['id']}", json=change), 422, "REQUEST_INVALID")
    assert await ok(await api.get(f"/templates/{template['id']}")) == template


async def test_a_slug_stays_once_a_version_was_published(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    await create_draft(api, template)
    slug = f"renamed-{uuid4().hex}"
    await ok(await api.patch(f"/templates/{template['id']}", json={"slug": slug}))
    await publish(api, template, version="2.0.0")
    answer = await api.patch(f"/templates/{template['id']}", json={"slug": f"again-{uuid4().hex}"})
    refused(answer, 409, "SLUG_FIXED")
    await ok(await api.patch(f"/templates/{template['id']}", json={"slug": slug, "name": "New name"}))


async def test_a_list_is_read_page_by_page_without_gaps_or_repetitions(api: httpx.AsyncClient) -> None:
    tag = uuid4().hex
    made = [(await create_template(api, tags=[tag]))["id"] for _ in range(5)]
    read: list[str] = []
    cursor: str | None = None
    while True:
        params = {"tag": tag, "limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = await ok(await api.get("/templates", params=params))
        read += [item["id"] for item in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert read == made[::-1]


async def test_a_list_is_narrowed_by_each_filter(api: httpx.AsyncClient) -> None:
    word = uuid4().hex
    wanted = await create_template(api, name=f"100% {word}", segment=word[:20], category=word[:10], tags=[word, "b"])
    await create_template(api, segment="OTHER")
    filters = (
        {"text": f"100% {word[:8]}"},
        {"segment": word[:20]},
        {"category": word[:10]},
        {"tag": word},
        {"tag": word, "status": "DRAFT"},
    )
    for params in filters:
        page = await ok(await api.get("/templates", params=params))
        assert [item["id"] for item in page["items"]] == [wanted["id"]], params
    page = await ok(await api.get("/templates", params={"tag": word, "status": "ACTIVE"}))
    assert page["items"] == []
    page = await ok(await api.get("/templates", params={"text": f"100_ {word[:8]}"}))
    assert page["items"] == []


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"status": "GONE"}])
async def test_a_list_refuses_a_filter_of_the_wrong_kind(api: httpx.AsyncClient, params: dict[str, str | int]) -> None:
    refused(await api.get("/templates", params=params), 422, "REQUEST_INVALID")


@pytest.mark.parametrize("cursor", ["x", "!!!!", "YWJj", "YQ|b"])
async def test_a_made_up_cursor_is_refused(api: httpx.AsyncClient, cursor: str) -> None:
    for path in ("/templates", "/links", "/executions"):
        refused(await api.get(path, params={"cursor": cursor}), 422, "CURSOR_INVALID")


async def test_a_template_without_executions_is_deleted_with_its_versions_and_links(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await create_template(api)
    version = await activate(api, template)
    entity_id = await link(api, template)
    assert (await api.delete(f"/templates/{template['id']}")).status_code == 204
    refused(await api.get(f"/templates/{template['id']}"), 404, "TEMPLATE_NOT_FOUND")
    refused(await api.get(f"/versions/{version['id']}"), 404, "VERSION_NOT_FOUND")
    refused(await api.get(f"/links/PRODUCT/{entity_id}"), 404, "LINK_NOT_FOUND")
    refused(await api.delete(f"/templates/{template['id']}"), 404, "TEMPLATE_NOT_FOUND")


async def test_a_template_with_executions_is_not_deleted(
    api: httpx.AsyncClient, temporal_address: str, task_queue: str, converter: DataConverter
) -> None:
    template = await active_template(api)
    entity_id = await link(api, template)
    async with running_worker(temporal_address, task_queue, converter):
        await ok(await api.post("/triggers/product-purchases", json=purchase(entity_id)), 202)
    refused(await api.delete(f"/templates/{template['id']}"), 409, "TEMPLATE_IN_USE")
    await ok(await api.get(f"/templates/{template['id']}"))


async def test_a_template_is_paused_resumed_and_archived(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    path = f"/templates/{template['id']}"
    refused(await api.post(f"{path}/pause"), 409, "TEMPLATE_NOT_ACTIVE")
    refused(await api.post(f"{path}/resume"), 409, "TEMPLATE_NOT_PAUSED")
    version = await activate(api, template)
    assert (await ok(await api.get(path)))["activeVersion"] == "1.0.0"
    assert (await ok(await api.post(f"{path}/pause")))["status"] == "PAUSED"
    assert (await ok(await api.post(f"{path}/pause")))["status"] == "PAUSED"
    assert (await ok(await api.post(f"{path}/resume")))["status"] == "ACTIVE"
    assert (await ok(await api.post(f"{path}/archive")))["status"] == "ARCHIVED"
    answer = await api.post(f"{path}/versions", json={"version": "2.0.0"})
    refused(answer, 409, "TEMPLATE_ARCHIVED")
    refused(await api.post(f"/versions/{version['id']}/activate"), 409, "TEMPLATE_ARCHIVED")
    answer = await api.put(f"/links/PRODUCT/{uuid4()}", json={"templateId": template["id"]})
    refused(answer, 409, "TEMPLATE_ARCHIVED")
    assert (await ok(await api.post(f"{path}/resume")))["status"] == "ACTIVE"


async def test_linking_an_entity_twice_is_the_same_link_or_a_clear_refusal(api: httpx.AsyncClient) -> None:
    template, other = await create_template(api), await create_template(api)
    path = f"/links/SERVICE_CATALOG/{uuid4()}"
    first = await ok(await api.put(path, json={"templateId": template["slug"]}), 201)
    assert first["templateId"] == template["id"]
    assert await ok(await api.put(path, json={"templateId": template["id"]})) == first
    refused(await api.put(path, json={"templateId": other["id"]}), 409, "LINK_EXISTS")
    assert await ok(await api.get(path)) == first
    assert (await api.delete(path)).status_code == 204
    refused(await api.delete(path), 404, "LINK_NOT_FOUND")
    assert (await ok(await api.put(path, json={"templateId": other["id"]}), 201))["template"] == other["slug"]


async def test_one_id_can_be_a_service_and_a_product(api: httpx.AsyncClient) -> None:
    template, other = await create_template(api), await create_template(api)
    entity_id = f"a/b {uuid4()}"
    await ok(await api.put(f"/links/PRODUCT/{entity_id}", json={"templateId": template["id"]}), 201)
    await ok(await api.put(f"/links/SERVICE_CATALOG/{entity_id}", json={"templateId": other["id"]}), 201)
    found = await ok(await api.get(f"/links/PRODUCT/{entity_id}"))
    assert (found["entityId"], found["template"]) == (entity_id, template["slug"])


async def test_links_are_listed_by_type_and_template(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    product, service = await link(api, template), await link(api, template, "SERVICE_CATALOG")
    page = await ok(await api.get("/links", params={"template": template["slug"]}))
    assert [item["entityId"] for item in page["items"]] == [service, product]
    page = await ok(await api.get("/links", params={"template": template["id"], "entityType": "PRODUCT", "limit": 1}))
    assert [item["entityId"] for item in page["items"]] == [product]
    refused(await api.get("/links", params={"template": "no-such"}), 404, "TEMPLATE_NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/links/PRODUCT/x", {"templateId": "no-such"}, 404, "TEMPLATE_NOT_FOUND"),
        ("/links/PLANET/x", {"templateId": "no-such"}, 422, "REQUEST_INVALID"),
        ("/links/PRODUCT/" + "x" * 201, {"templateId": "no-such"}, 422, "REQUEST_INVALID"),
        ("/links/PRODUCT/x", {}, 422, "REQUEST_INVALID"),
        ("/links/PRODUCT/x", {"templateId": 7}, 422, "REQUEST_INVALID"),
    ],
)
async def test_a_link_of_the_wrong_kind_is_refused(
    api: httpx.AsyncClient, path: str, body: Json, status: int, code: str
) -> None:
    refused(await api.put(path, json=body), status, code)
