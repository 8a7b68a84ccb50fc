"""What most tests of the API need first: definitions, and templates that can be started."""

import copy
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx

Json = dict[str, Any]

PLAIN: Json = {
    "schemaVersion": 1,
    "steps": [
        {"id": "start", "type": "START", "name": "Start"},
        {"id": "note", "type": "SYS_SET", "name": "Note", "assignments": [
            {"targetPath": "noted", "value": {"type": "const", "value": True}}
        ]},
        {"id": "end", "type": "END", "name": "End"},
    ],
    "stepTransitions": [
        {"id": "t1", "fromStepId": "start", "toStepId": "note"},
        {"id": "t2", "fromStepId": "note", "toStepId": "end"},
    ],
}  # fmt: skip

# Has the right shape, and breaks rules: nothing leads to the end.
BROKEN: Json = {
    "schemaVersion": 1,
    "steps": [
        {"id": "start", "type": "START", "name": "Start"},
        {"id": "end", "type": "END", "name": "End"},
    ],
    "stepTransitions": [],
}


def with_input_schema(schema: Mapping[str, Any]) -> Json:
    return {**copy.deepcopy(PLAIN), "inputSchema": dict(schema)}


def with_child(reference: Mapping[str, str]) -> Json:
    definition = copy.deepcopy(PLAIN)
    definition["steps"][1] = {"id": "note", "type": "SYS_SUB_WORKFLOW", "name": "Child", **reference}
    return definition


async def ok(response: httpx.Response, status: int = 200) -> Json:
    assert response.status_code == status, response.text
    answer: Json = response.json()
    return answer


def refused(response: httpx.Response, status: int, code: str) -> Json:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: Json = response.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert set(problem) <= {"type", "title", "status", "detail", "code", "problems", "eventRecordId"}
    for finding in problem.get("problems", ()):
        assert all(isinstance(finding[member], str) for member in ("path", "code", "message")), finding
    return problem


async def create_template(api: httpx.AsyncClient, **fields: Any) -> Json:
    body = {"name": "Some process", "slug": f"t-{uuid4().hex}", **fields}
    return await ok(await api.post("/templates", json=body), 201)


async def create_draft(
    api: httpx.AsyncClient, template: Json, definition: Json = PLAIN, version: str = "1.0.0"
) -> Json:
    body = {"version": version, "definition": definition}
    return await ok(await api.post(f"/templates/{template['id']}/versions", json=body), 201)


async def publish(api: httpx.AsyncClient, template: Json, definition: Json = PLAIN, version: str = "1.0.0") -> Json:
    draft = await create_draft(api, template, definition, version)
    return await ok(await api.post(f"/versions/{draft['id']}/publish"))


async def activate(api: httpx.AsyncClient, template: Json, definition: Json = PLAIN, version: str = "1.0.0") -> Json:
    published = await publish(api, template, definition, version)
    return await ok(await api.post(f"/versions/{published['id']}/activate"))


async def active_template(api: httpx.AsyncClient, definition: Json = PLAIN, **fields: Any) -> Json:
    template = await create_template(api, **fields)
    await activate(api, template, definition)
    return template


async def link(
    api: httpx.AsyncClient, template: Json, entity_type: str = "PRODUCT", entity_id: str | None = None
) -> str:
    """Links the template to an entity, a new one unless it is named, and gives the entity's id."""
    entity_id = entity_id or f"entity-{uuid4().hex}"
    body = {"templateId": template["id"]}
    await ok(await api.put(f"/links/{entity_type}/{entity_id}", json=body), 201)
    return entity_id


def purchase(entity_id: str, **fields: Any) -> Json:
    return {"eventId": f"evt-{uuid4().hex}", "entityId": entity_id, "context": {"amount": 1}, **fields}


async def webhook(api: httpx.AsyncClient, **fields: Any) -> Json:
    """An endpoint at a path of its own, for whoever comes unless `fields` say otherwise."""
    body = {"name": "Orders", "path": f"h-{uuid4().hex}", "verification": {"scheme": "NONE"}, **fields}
    return await ok(await api.post("/webhook-endpoints", json=body), 201)
