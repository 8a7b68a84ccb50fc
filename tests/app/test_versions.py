"""Versions and definitions over HTTP: drafts, publishing, activating, plans."""

import asyncio
import copy
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import event

from app.canonical import digest
from app.db.session import Database
from app.registry.queries import ActionRegistration, upsert_actions
from tests.app.scenes import (
    BROKEN,
    PLAIN,
    Json,
    activate,
    create_draft,
    create_template,
    ok,
    publish,
    refused,
    with_child,
)


async def test_a_draft_from_scratch_goes_from_start_to_end(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    draft = await ok(await api.post(f"/templates/{template['slug']}/versions", json={"version": "1.0.0"}), 201)
    assert [step["type"] for step in draft["definition"]["steps"]] == ["START", "END"]
    assert draft["status"] == "DRAFT"
    assert draft["active"] is False
    assert draft["definitionHash"] == digest(draft["definition"])
    assert [problem for problem in draft["problems"] if problem["severity"] == "ERROR"] == []


async def test_a_draft_can_be_a_copy_of_another_templates_version(api: httpx.AsyncClient) -> None:
    starter = await publish(api, await create_template(api))
    template = await create_template(api)
    body = {"version": "0.1.0-rc.1+build.5", "starterVersionId": starter["id"]}
    draft = await ok(await api.post(f"/templates/{template['id']}/versions", json=body), 201)
    assert draft["definition"] == PLAIN
    assert draft["version"] == "0.1.0-rc.1+build.5"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"version": "1.0"}, 422, "REQUEST_INVALID"),
        ({"version": "v1.0.0"}, 422, "REQUEST_INVALID"),
        ({"version": "01.0.0"}, 422, "REQUEST_INVALID"),
        ({"version": "1.0.0-" + "a" * 60}, 422, "REQUEST_INVALID"),
        ({"version": 1}, 422, "REQUEST_INVALID"),
        ({}, 422, "REQUEST_INVALID"),
        ({"version": "1.0.0", "definition": []}, 422, "REQUEST_INVALID"),
        ({"version": "1.0.0", "starterVersionId": "x"}, 422, "REQUEST_INVALID"),
        ({"version": "1.0.0", "starterVersionId": str(uuid4())}, 404, "VERSION_NOT_FOUND"),
        (
            {"version": "1.0.0", "starterVersionId": str(uuid4()), "definition": PLAIN},
            422,
            "REQUEST_INVALID",
        ),
        ({"version": "1.0.0", "definition": {"steps": "many"}}, 422, "DEFINITION_INVALID"),
        ({"version": "1.0.0", "definition": {**PLAIN, "colour": "red"}}, 422, "DEFINITION_INVALID"),
        ({"version": "1.0.0", "definition": {}}, 422, "DEFINITION_INVALID"),
    ],
)
async def test_what_is_no_draft_is_refused_and_not_stored(
    api: httpx.AsyncClient, body: Json, status: int, code: str
) -> None:
    template = await create_template(api)
    refused(await api.post(f"/templates/{template['id']}/versions", json=body), status, code)
    page = await ok(await api.get(f"/templates/{template['id']}/versions"))
    assert page["items"] == []


async def test_a_second_draft_with_the_same_version_is_refused(api: httpx.AsyncClient) -> None:
    template, other = await create_template(api), await create_template(api)
    await create_draft(api, template)
    answer = await api.post(f"/templates/{template['id']}/versions", json={"version": "1.0.0"})
    refused(answer, 409, "VERSION_EXISTS")
    await create_draft(api, other)
    second = await create_draft(api, template, version="2.0.0")
    answer = await api.patch(f"/versions/{second['id']}", json={"version": "1.0.0"})
    refused(answer, 409, "VERSION_EXISTS")


async def test_a_draft_may_have_problems_and_lists_them(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    draft = await create_draft(api, template, BROKEN)
    rules = {problem["rule"] for problem in draft["problems"]}
    assert "START_STEP_HAS_OUTGOING" in rules
    problem = draft["problems"][0]
    assert set(problem) == {"rule", "code", "severity", "path", "message", "stepIds", "transitionIds"}
    answer = await ok(await api.post(f"/versions/{draft['id']}/validate"))
    assert answer == {"valid": False, "problems": draft["problems"]}


async def test_step_types_may_be_written_in_their_dotted_form(api: httpx.AsyncClient) -> None:
    definition = copy.deepcopy(PLAIN)
    definition["steps"][1]["type"] = "sys.set"
    draft = await create_draft(api, await create_template(api), definition)
    assert draft["definition"] == PLAIN


async def test_editing_a_draft_leaves_alone_what_is_not_named(api: httpx.AsyncClient) -> None:
    draft = await create_draft(api, await create_template(api))
    path = f"/versions/{draft['id']}"
    changed = await ok(await api.patch(path, json={"versionNote": "n"}))
    assert (changed["versionNote"], changed["definition"]) == ("n", PLAIN)
    changed = await ok(await api.patch(path, json={"definition": BROKEN, "version": "1.0.1"}))
    assert changed["definitionHash"] == digest(BROKEN) != draft["definitionHash"]
    assert changed["problems"] != []
    found = await ok(await api.get(path))
    assert (found["definition"], found["version"], found["versionNote"]) == (BROKEN, "1.0.1", "n")
    refused(await api.patch(path, json={"definition": {"steps": 3}}), 422, "DEFINITION_INVALID")
    assert await ok(await api.get(path)) == found


async def test_publishing_an_invalid_draft_is_refused_with_every_problem(api: httpx.AsyncClient) -> None:
    draft = await create_draft(api, await create_template(api), BROKEN)
    problem = refused(await api.post(f"/versions/{draft['id']}/publish"), 422, "DEFINITION_INVALID")
    assert problem["problems"] == draft["problems"]
    found = await ok(await api.get(f"/versions/{draft['id']}"))
    assert (found["status"], found["publishedAt"]) == ("DRAFT", None)


async def test_a_published_version_is_not_edited_published_again_or_deleted(api: httpx.AsyncClient) -> None:
    published = await publish(api, await create_template(api))
    assert published["publishedAt"] is not None
    path = f"/versions/{published['id']}"
    refused(await api.patch(path, json={"definition": PLAIN}), 409, "VERSION_NOT_DRAFT")
    refused(await api.patch(path, json={"versionNote": "n"}), 409, "VERSION_NOT_DRAFT")
    refused(await api.post(f"{path}/publish"), 409, "VERSION_NOT_DRAFT")
    refused(await api.delete(path), 409, "VERSION_NOT_DRAFT")
    assert (await ok(await api.get(path)))["definition"] == PLAIN


async def test_a_draft_is_deleted(api: httpx.AsyncClient) -> None:
    draft = await create_draft(api, await create_template(api))
    assert (await api.delete(f"/versions/{draft['id']}")).status_code == 204
    refused(await api.get(f"/versions/{draft['id']}"), 404, "VERSION_NOT_FOUND")


async def test_activating_a_draft_is_refused(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    draft = await create_draft(api, template)
    refused(await api.post(f"/versions/{draft['id']}/activate"), 409, "VERSION_NOT_PUBLISHED")
    refused(await api.post(f"/versions/{draft['id']}/deprecate"), 409, "VERSION_NOT_PUBLISHED")
    found = await ok(await api.get(f"/templates/{template['id']}"))
    assert (found["status"], found["activeVersionId"]) == ("DRAFT", None)


async def test_one_version_is_active_and_an_earlier_one_can_come_back(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    first = await activate(api, template)
    assert (await ok(await api.get(f"/templates/{template['id']}")))["status"] == "ACTIVE"
    second = await activate(api, template, version="1.1.0")
    refused(await api.post(f"/versions/{second['id']}/deprecate"), 409, "VERSION_ACTIVE")
    deprecated = await ok(await api.post(f"/versions/{first['id']}/deprecate"))
    assert (deprecated["status"], deprecated["active"]) == ("DEPRECATED", False)
    again = await ok(await api.post(f"/versions/{first['id']}/activate"))
    assert (again["status"], again["active"]) == ("PUBLISHED", True)
    page = await ok(await api.get(f"/templates/{template['id']}/versions"))
    assert [(item["version"], item["active"]) for item in page["items"]] == [
        ("1.1.0", False),
        ("1.0.0", True),
    ]
    assert "definition" not in page["items"][0]


async def test_versions_are_listed_page_by_page(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    for minor in range(3):
        await create_draft(api, template, version=f"1.{minor}.0")
    path = f"/templates/{template['id']}/versions"
    page = await ok(await api.get(path, params={"limit": 2}))
    assert [item["version"] for item in page["items"]] == ["1.2.0", "1.1.0"]
    page = await ok(await api.get(path, params={"limit": 2, "cursor": page["nextCursor"]}))
    assert ([item["version"] for item in page["items"]], page["nextCursor"]) == (["1.0.0"], None)


async def test_an_edit_cannot_slip_between_validation_and_publication(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    for attempt in range(5):
        draft = await create_draft(api, template, version=f"1.0.{attempt}")
        path = f"/versions/{draft['id']}"
        published, edited = await asyncio.gather(
            api.post(f"{path}/publish"), api.patch(path, json={"definition": BROKEN})
        )
        found = await ok(await api.get(path))
        if published.status_code == 200:
            assert found["definition"] == PLAIN
            refused(edited, 409, "VERSION_NOT_DRAFT")
        else:
            refused(published, 422, "DEFINITION_INVALID")
            assert (found["status"], found["definition"]) == ("DRAFT", BROKEN)


async def test_the_plan_lists_the_steps_in_order_with_where_they_lead(api: httpx.AsyncClient) -> None:
    version = await publish(api, await create_template(api))
    plan = await ok(await api.get(f"/versions/{version['id']}/plan"))
    assert [(step["id"], step["type"]) for step in plan["steps"]] == [
        ("start", "START"),
        ("note", "SYS_SET"),
        ("end", "END"),
    ]
    assert plan["steps"][0]["outgoing"] == [{"transitionId": "t1", "toStepId": "note", "isDefault": False}]


async def test_an_invalid_draft_has_no_plan(api: httpx.AsyncClient) -> None:
    draft = await create_draft(api, await create_template(api), BROKEN)
    refused(await api.get(f"/versions/{draft['id']}/plan"), 422, "DEFINITION_INVALID")


async def test_an_unsaved_definition_is_validated(api: httpx.AsyncClient) -> None:
    answer = await ok(await api.post("/definitions/validate", json={"definition": PLAIN}))
    assert answer["valid"] is True
    answer = await ok(await api.post("/definitions/validate", json={"definition": {"steps": []}}))
    assert answer["valid"] is False
    body = {"definition": PLAIN, "templateId": "no-such"}
    refused(await api.post("/definitions/validate", json=body), 404, "TEMPLATE_NOT_FOUND")


async def _rules(api: httpx.AsyncClient, definition: Json, template_id: str | None = None) -> set[str]:
    body = {"definition": definition} | ({"templateId": template_id} if template_id else {})
    answer = await ok(await api.post("/definitions/validate", json=body))
    return {problem["rule"] for problem in answer["problems"] if problem["severity"] == "ERROR"}


async def test_children_are_judged_by_what_is_stored(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    draft = await create_draft(api, template, version="2.0.0")
    version = await publish(api, template)
    by_version = "childWorkflowTemplateVersionId"
    for reference in (version["id"], f"{template['slug']}@1.0.0"):
        assert await _rules(api, with_child({by_version: reference})) == set()
    for reference in (draft["id"], f"{template['slug']}@2.0.0"):
        assert await _rules(api, with_child({by_version: reference})) == {"CHILD_PUBLISHED"}
    for reference in (str(uuid4()), f"{template['slug']}@3.0.0", "no-such@1.0.0"):
        assert await _rules(api, with_child({by_version: reference})) == {"CHILD_EXISTS"}


async def test_a_child_by_template_needs_a_template_that_exists(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    await activate(api, template)
    for reference in (template["id"], template["slug"]):
        assert await _rules(api, with_child({"childWorkflowTemplateId": reference})) == set()
    assert await _rules(api, with_child({"childWorkflowTemplateId": "no-such"})) == {"CHILD_EXISTS"}


async def test_actions_are_judged_by_what_workers_announced(api: httpx.AsyncClient, database: Database) -> None:
    schema = {"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}}}
    async with database.transaction() as session:
        await upsert_actions(session, [ActionRegistration("mail.send", "1.0.0", schema)])
    definition = copy.deepcopy(PLAIN)
    definition["steps"][1] = {
        "id": "note",
        "type": "SYS_ACTION",
        "name": "Mail",
        "actionKey": "mail.send",
        "parameters": {"to": "ann"},
    }
    assert await _rules(api, definition) == set()
    definition["steps"][1]["parameters"] = {}
    assert await _rules(api, definition) == {"ACTION_PARAMETERS_VALID"}
    definition["steps"][1]["actionKey"] = "mail.receive"
    assert await _rules(api, definition) == {"ACTION_EXISTS"}


async def test_compensators_datasources_and_long_actions_are_judged_by_what_workers_announced(
    api: httpx.AsyncClient, database: Database
) -> None:
    schema = {"type": "object", "required": ["id"]}
    announced = [
        ActionRegistration("room.book", "1.0.0", {}, policies={"long": True}),
        ActionRegistration("room.free", "1.0.0", schema),
    ]
    async with database.transaction() as session:
        await upsert_actions(session, announced)
    step: Json = {"id": "note", "type": "SYS_ACTION", "name": "Book", "actionKey": "room.book", "timeout": "PT1H"}
    definition = copy.deepcopy(PLAIN)
    definition["steps"][1] = step
    step["compensate"] = {"actionKey": "room.free", "parameters": {"id": 1}}
    step["dataSources"] = [{"alias": "room", "dataSourceId": "room.free", "params": {"id": 1}}]
    assert await _rules(api, definition) == set()
    step["compensate"]["timeout"] = "PT1H"
    assert await _rules(api, definition) == {"ACTION_TIMEOUT_IN_RANGE"}
    step["compensate"] = {"actionKey": "room.leave"}
    step["dataSources"][0]["dataSourceId"] = "room.list"
    assert await _rules(api, definition) == {"ACTION_EXISTS", "DATASOURCE_EXISTS"}
    step["compensate"] = {"actionKey": "room.free"}
    step["dataSources"] = "nothing"
    assert await _rules(api, definition) == {"DEFINITION_SHAPE"}


async def test_the_catalogue_costs_the_same_statements_however_many_children(
    api: httpx.AsyncClient, database: Database
) -> None:
    children = [await publish(api, await create_template(api)) for _ in range(6)]
    counts = []
    for wanted in (children[:1], children):
        definition = copy.deepcopy(PLAIN)
        definition["steps"] += [
            {
                "id": f"c{index}",
                "type": "SYS_SUB_WORKFLOW",
                "name": "C",
                "childWorkflowTemplateVersionId": child["id"],
            }
            for index, child in enumerate(wanted)
        ]
        statements: list[str] = []

        def note(*arguments: object, into: list[str] = statements) -> None:
            into.append(str(arguments[2]))

        event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        await ok(await api.post("/definitions/validate", json={"definition": definition}))
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 3


async def test_announced_actions_can_be_read(api: httpx.AsyncClient, database: Database) -> None:
    key = f"a.{uuid4().hex}"
    async with database.transaction() as session:
        await upsert_actions(session, [ActionRegistration(key, "1.0.0", {"type": "object"})])
        await upsert_actions(session, [ActionRegistration(key, "1.1.0", {}, description="d")])
    found = await ok(await api.get(f"/registry/actions/{key}"))
    assert (found["version"], found["parametersSchema"], found["description"]) == ("1.1.0", {}, "d")
    assert found in (await ok(await api.get("/registry/actions")))["items"]
    refused(await api.get("/registry/actions/no.such"), 404, "ACTION_NOT_FOUND")


@pytest.mark.parametrize("action", ["", "/validate", "/publish", "/activate", "/deprecate", "/plan"])
async def test_an_unknown_version_is_not_found(api: httpx.AsyncClient, action: str) -> None:
    method = "GET" if action in ("", "/plan") else "POST"
    refused(await api.request(method, f"/versions/{uuid4()}{action}"), 404, "VERSION_NOT_FOUND")
    refused(await api.request(method, f"/versions/not-an-id{action}"), 404, "VERSION_NOT_FOUND")
