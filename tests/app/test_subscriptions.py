"""Subscriptions: a template hears of a trigger, and everything about it is checked when it is saved."""

import copy
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.db.session import Database
from app.db.statuses import EventSource
from app.inbox.storing import Incoming, store
from tests.app.scenes import PLAIN, Json, active_template, create_template, ok, refused
from tests.app.test_changes_audited import audited

ANN = {"X-Millrace-Actor": "ann"}
WON = {"field": "after.status", "operator": "=", "value": "won"}
RESUME = {"mode": "RESUME", "signal": "paid", "correlationKey": "{{ body.id }}"}


def paths(problem: Json) -> list[str]:
    return [each["path"] for each in problem["problems"]]


async def subscribe(api: httpx.AsyncClient, template: Json | None = None, **fields: Any) -> httpx.Response:
    owner = template or await active_template(api)
    return await api.post(
        "/subscriptions", json={"templateId": owner["id"], "triggerKey": "webhook_generic", **fields}, headers=ANN
    )


async def test_a_subscription_is_created_changed_and_deleted_and_all_of_it_audited(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    made = await ok(await subscribe(api, template, filter=WON, description="won deals"), 201)
    path = f"/subscriptions/{made['id']}"
    assert (made["status"], made["mode"], made["template"]) == ("ACTIVE", "START", template["slug"])
    assert made["filterText"] == 'after.status = "won"'
    assert made["warnings"] == []
    assert await ok(await api.get(path)) == made
    changed = await ok(await api.patch(path, json={"filter": None, "name": "{{ body.id }}"}, headers=ANN))
    assert (changed["filter"], changed["filterText"], changed["name"]) == (None, "every event", "{{ body.id }}")
    assert changed["description"] == "won deals"
    assert (await ok(await api.post(f"{path}/deactivate", headers=ANN)))["status"] == "INACTIVE"
    assert (await ok(await api.post(f"{path}/deactivate", headers=ANN)))["status"] == "INACTIVE"
    assert (await ok(await api.post(f"{path}/activate", headers=ANN)))["status"] == "ACTIVE"
    assert (await api.delete(path, headers=ANN)).status_code == 204
    refused(await api.get(path), 404, "SUBSCRIPTION_NOT_FOUND")
    deeds = await audited(api, "SUBSCRIPTION", made["id"])
    assert [(action, actor) for action, actor, _, _ in deeds] == [
        ("CREATE_SUBSCRIPTION", "ann"),
        ("CHANGE_SUBSCRIPTION", "ann"),
        ("DEACTIVATE_SUBSCRIPTION", "ann"),
        ("ACTIVATE_SUBSCRIPTION", "ann"),
        ("DELETE_SUBSCRIPTION", "ann"),
    ]
    assert deeds[1][2:] == ({"filter": WON, "name": None}, {"filter": None, "name": "{{ body.id }}"})


async def test_subscriptions_are_listed_by_template_trigger_and_status(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    made = [await ok(await subscribe(api, template, status=status), 201) for status in ("ACTIVE", "INACTIVE", "ACTIVE")]
    other = await ok(await subscribe(api, template, triggerKey="manual"), 201)

    async def listed(**query: Any) -> list[str]:
        found = await ok(await api.get("/subscriptions", params={"template": template["slug"], **query}))
        return [one["id"] for one in found["items"]]

    newest_first = [other["id"], *(one["id"] for one in reversed(made))]
    assert await listed() == newest_first
    assert await listed(triggerKey="manual") == [other["id"]]
    assert await listed(status="INACTIVE") == [made[1]["id"]]
    first = await ok(await api.get("/subscriptions", params={"template": template["id"], "limit": 3}))
    rest = await ok(await api.get("/subscriptions", params={"template": template["id"], "cursor": first["nextCursor"]}))
    assert [one["id"] for one in (*first["items"], *rest["items"])] == newest_first
    refused(await api.get("/subscriptions", params={"template": "nobody"}), 404, "TEMPLATE_NOT_FOUND")


async def test_template_and_trigger_must_be_there(api: httpx.AsyncClient) -> None:
    refused(await subscribe(api, {"id": "nobody"}), 404, "TEMPLATE_NOT_FOUND")
    refused(await subscribe(api, triggerKey="nobody"), 404, "TRIGGER_NOT_FOUND")
    archived = await active_template(api)
    await ok(await api.post(f"/templates/{archived['id']}/archive"))
    refused(await subscribe(api, archived), 409, "TEMPLATE_ARCHIVED")


async def test_a_broken_filter_is_refused_with_every_problem(api: httpx.AsyncClient) -> None:
    broken = {"combinator": "AND", "conditions": [WON | {"operator": "like"}, {"field": "x", "operator": "between"}]}
    problem = refused(await subscribe(api, filter=broken), 422, "FILTER_INVALID")
    assert paths(problem) == ["filter.conditions[0].operator", "filter.conditions[1].value"]


async def test_properties_are_held_to_the_form_of_the_trigger(api: httpx.AsyncClient) -> None:
    given = {"methods": ["POST", "SEND"], "path": 5, "colour": "red"}
    problem = refused(await subscribe(api, properties=given), 422, "PROPERTIES_INVALID")
    assert sorted(paths(problem)) == ["properties.colour", "properties.methods", "properties.path"]
    made = await ok(await subscribe(api, properties={"methods": ["POST"], "path": "/orders/*"}), 201)
    path = f"/subscriptions/{made['id']}"
    refused(await api.patch(path, json={"properties": {"methods": "POST"}}), 422, "PROPERTIES_INVALID")
    assert (await ok(await api.get(path)))["properties"] == {"methods": ["POST"], "path": "/orders/*"}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"context": {"a": {"type": "expr", "expr": {"src": "__context__.x"}}}}, "context.a.expr"),
        ({"context": "{{ a b }}"}, "context"),
        ({"context": [1]}, "context"),
        ({"name": {"type": "template", "src": "at {{ $now() }}"}}, "name"),
        ({"name": "Order {{ body.id }}"}, "name"),
        ({"name": {"a": 1}}, "name"),
        (
            {"correlationKey": {"type": "field", "ref": {"source": "STEP", "stepId": "a", "path": "b"}}},
            "correlationKey",
        ),
        ({"correlationKey": True}, "correlationKey"),
    ],
)
async def test_a_value_that_no_event_could_give_is_refused(api: httpx.AsyncClient, fields: Json, path: str) -> None:
    assert path in paths(refused(await subscribe(api, **fields), 422, "EXPRESSION_INVALID"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"mode": "RESUME"}, ["signal", "correlationKey"]),
        ({"mode": "START_OR_RESUME", "signal": "paid"}, ["correlationKey"]),
        ({"mode": "RESUME", "correlationKey": "{{ id }}"}, ["signal"]),
        ({"signal": "paid"}, ["signal"]),
    ],
)
async def test_resuming_needs_a_signal_and_a_correlation_key(
    api: httpx.AsyncClient, fields: Json, expected: list[str]
) -> None:
    assert paths(refused(await subscribe(api, **fields), 422, "SUBSCRIPTION_INVALID")) == expected


async def test_a_subscription_that_resumes_cannot_lose_its_signal(api: httpx.AsyncClient) -> None:
    made = await ok(await subscribe(api, **RESUME), 201)
    refused(await api.patch(f"/subscriptions/{made['id']}", json={"signal": None}), 422, "SUBSCRIPTION_INVALID")


async def test_a_template_that_is_not_active_is_a_warning(api: httpx.AsyncClient) -> None:
    made = await ok(await subscribe(api, await create_template(api), status="INACTIVE"), 201)
    assert made["warnings"] == []
    activated = await ok(await api.post(f"/subscriptions/{made['id']}/activate"))
    assert activated["status"] == "ACTIVE"
    assert [each["code"] for each in activated["warnings"]] == ["TEMPLATE_NOT_ACTIVE"]


def _waiting_for(signal: Any) -> Json:
    definition = copy.deepcopy(PLAIN)
    definition["steps"][1] = {"id": "note", "type": "SYS_WAIT_SIGNAL", "name": "Wait", "signal": signal}
    return definition


@pytest.mark.parametrize("mode", ["RESUME", "START_OR_RESUME"])
async def test_a_signal_that_no_step_takes_is_a_warning(api: httpx.AsyncClient, mode: str) -> None:
    template = await active_template(api, _waiting_for("shipped"))
    made = await ok(await subscribe(api, template, **(RESUME | {"mode": mode})), 201)
    [warning] = made["warnings"]
    assert warning["code"] == "SIGNAL_UNKNOWN"
    assert warning["message"] == f"The steps of {template['slug']}'s active version take no signal paid, but: shipped."
    path = f"/subscriptions/{made['id']}"
    assert (await ok(await api.get(path)))["warnings"] == [warning]
    listed = await ok(await api.get("/subscriptions", params={"template": template["slug"]}))
    assert listed["items"][0]["warnings"] == [warning]
    body = {"payload": {"body": {"id": 1}}}
    assert (await ok(await api.post(f"{path}/explain", json=body)))["warnings"] == [warning]
    tested = await ok(await api.post("/registry/triggers/webhook_generic/test", json=body | {"dryRun": True}))
    assert [one["warnings"] for one in tested["subscriptions"] if one["subscriptionId"] == made["id"]] == [[warning]]
    assert (await ok(await api.patch(path, json={"signal": "shipped"})))["warnings"] == []


async def test_a_signal_for_steps_that_take_none_is_a_warning(api: httpx.AsyncClient) -> None:
    made = await ok(await subscribe(api, **RESUME), 201)
    assert made["warnings"][0]["message"].endswith("active version take no signal.")
    assert (await ok(await api.patch(f"/subscriptions/{made['id']}", json={"mode": "START", "signal": None})))[
        "warnings"
    ] == []


async def test_a_signal_whose_name_is_only_known_when_it_is_waited_for_is_no_warning(api: httpx.AsyncClient) -> None:
    template = await active_template(api, _waiting_for({"type": "expr", "expr": "__context__.which"}))
    assert (await ok(await subscribe(api, template, **RESUME), 201))["warnings"] == []


async def test_activation_checks_anew_what_the_trigger_asks_for(api: httpx.AsyncClient) -> None:
    key = f"t_{uuid4().hex}"
    trigger = {"key": key, "name": "T", "category": "external", "source": "manual"}
    await ok(await api.post("/registry/triggers", json=trigger), 201)
    made = await ok(await subscribe(api, triggerKey=key, status="INACTIVE"), 201)
    needed = [{"name": "who", "displayName": "Who", "type": "string", "required": True}]
    await ok(await api.patch(f"/registry/triggers/{key}", json={"properties": needed}))
    activate = f"/subscriptions/{made['id']}/activate"
    refused(await api.post(activate), 422, "PROPERTIES_INVALID")
    await ok(await api.patch(f"/subscriptions/{made['id']}", json={"properties": {"who": "ann"}}))
    await ok(await api.post(activate))


async def test_it_is_explained_why_a_payload_matches_or_not(api: httpx.AsyncClient) -> None:
    both = {"combinator": "AND", "conditions": [WON, {"field": "after.amount", "operator": ">", "value": 10}]}
    made = await ok(await subscribe(api, filter=both, properties={"methods": ["POST"]}, **RESUME), 201)
    path = f"/subscriptions/{made['id']}/explain"
    payload = {"method": "POST", "after": {"status": "won", "amount": 5}, "body": {"id": 42}}
    found = await ok(await api.post(path, json={"payload": payload}))
    assert not found["holds"]
    assert [(part["path"], part["holds"]) for part in found["filter"]["parts"]] == [
        ("filter.conditions[0]", True),
        ("filter.conditions[1]", False),
    ]
    assert (found["filter"]["parts"][1]["left"], found["filter"]["parts"][1]["right"]) == (5, 10)
    assert found["properties"] == [{"property": "methods", "holds": True, "reason": None}]
    assert (found["correlationKey"], found["context"]) == ("42", payload)
    undecided = await ok(await api.post(path, json={"payload": {"after": {"amount": [1]}}}))
    assert undecided["filter"]["parts"][1]["reason"]
    assert undecided["problem"]["code"] == "EXPRESSION_UNDEFINED"


async def test_an_event_of_the_inbox_is_explained(api: httpx.AsyncClient, database: Database) -> None:
    made = await ok(await subscribe(api, filter=WON), 201)
    event = Incoming(EventSource.WEBHOOK, "webhook_generic", uuid4().hex, "x", {"after": {"status": "won"}})
    async with database.driver() as connection, connection.transaction():
        await store(connection, [event])
    path = f"/subscriptions/{made['id']}/explain"
    assert (await ok(await api.post(path, json={"eventRecordId": str(event.id)})))["holds"]
    refused(await api.post(path, json={"eventRecordId": str(uuid4())}), 404, "TRIGGER_EVENT_NOT_FOUND")
    refused(await api.post(path, json={}), 422, "EXPLAIN_INVALID")
    refused(await api.post(path, json={"eventRecordId": str(event.id), "payload": 1}), 422, "EXPLAIN_INVALID")


async def test_null_is_a_payload_that_can_be_explained(api: httpx.AsyncClient) -> None:
    made = await ok(await subscribe(api, filter=WON), 201)
    found = await ok(await api.post(f"/subscriptions/{made['id']}/explain", json={"payload": None}))
    assert not found["holds"]
    assert found["problem"]["code"] == "CONTEXT_INVALID"


async def test_a_template_takes_its_subscriptions_along(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    made = await ok(await subscribe(api, template), 201)
    assert (await api.delete(f"/templates/{template['id']}")).status_code == 204
    refused(await api.get(f"/subscriptions/{made['id']}"), 404, "SUBSCRIPTION_NOT_FOUND")
