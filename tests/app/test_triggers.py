"""Events and manual starts: what is started, and once."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select
from sqlmodel import col
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.converter import DataConverter

from app.db.session import Database
from app.db.tables import WorkflowExecution
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
    with_input_schema,
)
from tests.app.tiny_workflow import running_worker

PURCHASES = "/triggers/product-purchases"
REQUESTS = "/triggers/service-requests"


async def _row(database: Database, execution_id: str) -> WorkflowExecution:
    async with database.transaction() as session:
        row = await session.get(WorkflowExecution, UUID(execution_id))
    assert row is not None
    return row


async def _count(database: Database, template: Json) -> int:
    async with database.transaction() as session:
        statement = select(func.count()).where(col(WorkflowExecution.template_id) == UUID(template["id"]))
        return int((await session.execute(statement)).scalar_one())


def _lasting(answer: Json) -> Json:
    """An answer without what was the matter only when it was given: nobody polls here."""
    return {name: value for name, value in answer.items() if name != "problem"}


def _matched(answer: Json) -> bool:
    """Whether an event was wanted; an answer that says no says nothing else."""
    assert set(answer) == {"eventRecordId", "matched"}
    return bool(answer["matched"])


def _without_event(trigger: Json) -> Json:
    return {name: value for name, value in trigger.items() if name not in ("eventId", "eventRecordId")}


async def test_a_purchase_starts_the_linked_templates_active_version(
    api: httpx.AsyncClient, database: Database, temporal_client: Client
) -> None:
    template = await active_template(api, name="Onboarding")
    entity_id = await link(api, template)
    body = purchase(entity_id, context={"price": 12.5, "name": "Zoë"})
    answer = await ok(await api.post(PURCHASES, json=body), 202)
    assert set(answer) - {"problem"} == {"executionId", "status", "matched", "eventRecordId"}
    assert (answer["status"], answer["matched"]) == ("STARTED", True)

    row = await _row(database, answer["executionId"])
    assert (row.status, row.name, row.context) == ("STARTED", "Onboarding", body["context"])
    assert row.trigger == {
        "source": "product-purchase",
        "eventId": body["eventId"],
        "entityType": "PRODUCT",
        "entityId": entity_id,
        "eventRecordId": answer["eventRecordId"],
        "summary": f"purchase {body['eventId']} · PRODUCT {entity_id}",
    }
    assert row.idempotency_key == f"product-purchase:{body['eventId']}"
    assert (row.root_id, row.parent_id) == (row.id, None)

    run = await temporal_client.get_workflow_handle(f"execution/{row.id}").describe()
    assert run.workflow_type == template["slug"]
    assert await run.static_summary() == f"Onboarding v1.0.0 · PRODUCT {entity_id}"
    attributes = {
        name: run.typed_search_attributes.get(SearchAttributeKey.for_keyword(name))
        for name in ("MillraceTemplate", "MillraceVersion", "MillraceRootExecution", "MillraceEntityId")
    }
    assert attributes == {
        "MillraceTemplate": template["slug"],
        "MillraceVersion": "1.0.0",
        "MillraceRootExecution": str(row.id),
        "MillraceEntityId": entity_id,
    }


async def test_a_trigger_with_no_link_matches_nothing(api: httpx.AsyncClient) -> None:
    assert _matched(await ok(await api.post(PURCHASES, json=purchase("nobody")))) is False
    # The product of that id is linked; the service of that id is not.
    entity_id = await link(api, await active_template(api))
    assert _matched(await ok(await api.post(REQUESTS, json=purchase(entity_id)))) is False


async def test_a_trigger_whose_template_has_no_active_version_is_refused(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await create_template(api)
    await publish(api, template)
    entity_id = await link(api, template, "SERVICE_CATALOG")
    refused(await api.post(REQUESTS, json=purchase(entity_id)), 422, "TEMPLATE_NOT_ACTIVE")
    assert await _count(database, template) == 0


@pytest.mark.parametrize(("action", "code"), [("pause", "TEMPLATE_PAUSED"), ("archive", "TEMPLATE_ARCHIVED")])
async def test_a_trigger_of_a_template_that_is_at_rest_is_refused(
    api: httpx.AsyncClient, action: str, code: str
) -> None:
    template = await active_template(api)
    entity_id = await link(api, template)
    body = purchase(entity_id)
    first = await ok(await api.post(PURCHASES, json=body), 202)
    await ok(await api.post(f"/templates/{template['id']}/{action}"))
    refused(await api.post(PURCHASES, json=purchase(entity_id)), 422, code)
    refused(await api.post(f"/templates/{template['id']}/execute", json={}), 422, code)
    repeated = await ok(await api.post(PURCHASES, json=body))
    assert repeated["executionId"] == first["executionId"]


async def test_a_repeated_event_gets_the_execution_it_got_before(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    entity_id = await link(api, template)
    body = purchase(entity_id, context={"a": 1, "b": [2.0, {"c": None}]})
    first = _lasting(await ok(await api.post(PURCHASES, json=body), 202))
    reordered = {**body, "context": dict(reversed(body["context"].items()))}
    assert await ok(await api.post(PURCHASES, json=reordered)) == first
    # Also when another version is active by now.
    await activate(api, template, version="2.0.0")
    assert await ok(await api.post(PURCHASES, json=body)) == first
    assert await _count(database, template) == 1


@pytest.mark.parametrize("change", [{"context": {"amount": 2}}, {"name": "Other"}])
async def test_a_repeated_event_with_another_body_is_a_conflict(
    api: httpx.AsyncClient, database: Database, change: Json
) -> None:
    template = await active_template(api)
    entity_id = await link(api, template)
    body = purchase(entity_id)
    await ok(await api.post(PURCHASES, json=body), 202)
    refused(await api.post(PURCHASES, json={**body, **change}), 409, "IDEMPOTENCY_CONFLICT")
    other_entity = await link(api, template)
    answer = await api.post(PURCHASES, json={**body, "entityId": other_entity})
    refused(answer, 409, "IDEMPOTENCY_CONFLICT")
    assert await _count(database, template) == 1


async def test_an_event_id_of_a_purchase_never_meets_one_of_a_service_request(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    product, service = await link(api, template), await link(api, template, "SERVICE_CATALOG")
    key = str(uuid4())
    bought = await ok(await api.post(PURCHASES, json=purchase(product, eventId=key)), 202)
    requested = await ok(await api.post(REQUESTS, json=purchase(service, eventId=key)), 202)
    by_hand = await ok(
        await api.post(
            f"/templates/{template['id']}/execute",
            json={},
            headers={"Idempotency-Key": f"product-purchase:{key}"},
        ),
        202,
    )
    assert len({answer["executionId"] for answer in (bought, requested, by_hand)}) == 3


async def test_many_equal_events_at_once_give_exactly_one_execution(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    body = purchase(await link(api, template))
    answers = await asyncio.gather(*(api.post(PURCHASES, json=body) for _ in range(12)))
    assert {answer.json()["executionId"] for answer in answers} == {answers[0].json()["executionId"]}
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [202]
    assert await _count(database, template) == 1


async def test_many_different_events_with_one_id_at_once_give_one_execution_and_conflicts(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    body = purchase(await link(api, template))
    answers = await asyncio.gather(*(api.post(PURCHASES, json={**body, "context": {"n": n}}) for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    assert await _count(database, template) == 1


SCHEMA = {
    "type": "object",
    "required": ["email"],
    "properties": {"email": {"type": "string"}, "lines": {"items": {"type": "integer"}}},
}


async def test_a_context_that_does_not_fit_the_input_schema_is_refused_with_paths(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api, with_input_schema(SCHEMA))
    entity_id = await link(api, template)
    body = purchase(entity_id, context={"email": 7, "lines": [1, "two"]})
    problem = refused(await api.post(PURCHASES, json=body), 422, "CONTEXT_INVALID")
    assert {item["path"] for item in problem["problems"]} == {"context.email", "context.lines[1]"}
    answer = await api.post(f"/templates/{template['id']}/execute", json={"context": {}})
    refused(answer, 422, "CONTEXT_INVALID")
    assert await _count(database, template) == 0
    await ok(await api.post(PURCHASES, json={**body, "context": {"email": "a@b"}}), 202)


async def test_a_context_that_is_too_large_is_refused(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    body = purchase(await link(api, template), context={"text": "x" * 50_000})
    refused(await api.post(PURCHASES, json=body), 413, "CONTEXT_TOO_LARGE")
    assert await _count(database, template) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"eventId": ""},
        {"eventId": None},
        {"eventId": "x" * 401},
        {"entityId": ""},
        {"context": []},
        {"context": None},
        {"name": ""},
        {"colour": "red"},
        {"event_id": "snake"},
    ],
)
async def test_a_trigger_of_the_wrong_shape_is_refused(api: httpx.AsyncClient, change: Json) -> None:
    refused(await api.post(PURCHASES, json={**purchase("e"), **change}), 422, "REQUEST_INVALID")


async def test_a_manual_start_is_idempotent_only_with_a_key(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    path = f"/templates/{template['slug']}/execute"
    headers = {"X-Millrace-Actor": "ann"}
    first = await ok(await api.post(path, json={}, headers=headers), 202)
    second = await ok(await api.post(path, json={}, headers=headers), 202)
    assert first["executionId"] != second["executionId"]
    row = await _row(database, first["executionId"])
    assert _without_event(row.trigger or {}) == {
        "source": "manual",
        "actor": "ann",
        "summary": f"started by ann · {template['slug']}",
    }
    keyed = headers | {"Idempotency-Key": "k 1"}
    third = _lasting(await ok(await api.post(path, json={"name": "N"}, headers=keyed), 202))
    assert await ok(await api.post(path, json={"name": "N"}, headers=keyed)) == third
    refused(await api.post(path, json={"name": "M"}, headers=keyed), 409, "IDEMPOTENCY_CONFLICT")
    body = {"name": "N", "version": "1.0.0"}
    refused(await api.post(path, json=body, headers=keyed), 409, "IDEMPOTENCY_CONFLICT")


async def test_a_manual_start_can_name_a_version(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    older = await publish(api, template, version="0.9.0")
    await create_draft(api, template, version="3.0.0")
    path = f"/templates/{template['id']}/execute"
    started = await ok(await api.post(path, json={"version": "0.9.0"}), 202)
    assert (await _row(database, started["executionId"])).version_id == UUID(older["id"])
    refused(await api.post(path, json={"version": "3.0.0"}), 409, "VERSION_NOT_PUBLISHED")
    refused(await api.post(path, json={"version": "4.0.0"}), 404, "VERSION_NOT_FOUND")
    refused(await api.post(path, json={"version": "four"}), 422, "REQUEST_INVALID")


async def test_starting_an_unknown_template_is_not_found(api: httpx.AsyncClient) -> None:
    refused(await api.post("/templates/no-such/execute", json={}), 404, "TEMPLATE_NOT_FOUND")
    template = await create_template(api)
    refused(await api.post(f"/templates/{template['id']}/execute", json={}), 422, "TEMPLATE_NOT_ACTIVE")


async def test_waiting_answers_with_the_output_when_the_run_ends_in_time(
    api: httpx.AsyncClient, temporal_address: str, task_queue: str, converter: DataConverter
) -> None:
    template = await active_template(api)
    path = f"/templates/{template['id']}/execute"
    async with running_worker(temporal_address, task_queue, converter):
        answer = await ok(await api.post(f"{path}?wait=PT10S", json={"context": {"a": 1}, "name": "N"}))
        assert answer["runtimeStatus"] == "COMPLETED"
        answer["output"]["trigger"] = _without_event(answer["output"]["trigger"])
        assert answer["output"] == {
            "context": {"a": 1},
            "name": "N",
            "trigger": {"source": "manual", "actor": None, "summary": f"started · {template['slug']}"},
        }
        failed = await ok(await api.post(f"{path}?wait=10", json={"context": {"do": "fail"}}))
        assert failed["runtimeStatus"] == "FAILED"
        assert failed["error"] == {"code": "NO_STOCK", "message": "nothing left", "stepId": "note"}
        assert "output" not in failed
        waiting = await ok(await api.post(f"{path}?wait=PT0.2S", json={"context": {"do": "wait"}}), 202)
        assert set(waiting) - {"problem"} == {"executionId", "status"}


@pytest.mark.parametrize("wait", ["soon", "-1", "-PT1S", "PT", "61", "PT1M1S", "P1D"])
async def test_a_wait_that_is_no_duration_is_refused(api: httpx.AsyncClient, wait: str) -> None:
    answer = await api.post("/templates/any/execute", params={"wait": wait}, json={})
    refused(answer, 422, "REQUEST_INVALID")


async def test_a_summary_longer_than_the_server_takes_is_cut(api: httpx.AsyncClient, temporal_client: Client) -> None:
    name: Any = "長い名前" * 50
    template = await active_template(api, name=name)
    entity_id = "ö" * 200
    await ok(await api.put(f"/links/PRODUCT/{entity_id}", json={"templateId": template["id"]}), 201)
    answer = await ok(await api.post(PURCHASES, json=purchase(entity_id)), 202)
    assert answer["status"] == "STARTED"
    run = await temporal_client.get_workflow_handle(f"execution/{answer['executionId']}").describe()
    assert (await run.static_summary() or "").startswith("長い名前")
