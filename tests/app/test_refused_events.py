"""Events that are stored and refused: the refusal names the event, so that it can be found and delivered again."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from tests.app.scenes import Json, activate, active_template, create_template, link, ok, publish, purchase, refused
from tests.app.scenes import webhook as create_webhook

pytestmark = pytest.mark.usefixtures("stand_in")

PURCHASES = "/triggers/product-purchases"
REQUESTS = "/triggers/service-requests"


@pytest.mark.parametrize(("path", "entity_type"), [(PURCHASES, "PRODUCT"), (REQUESTS, "SERVICE_CATALOG")])
async def test_a_refused_event_is_named_and_can_be_delivered_again_by_that_name(
    api: httpx.AsyncClient, path: str, entity_type: str
) -> None:
    template = await create_template(api)
    version = await publish(api, template)
    body = purchase(await link(api, template, entity_type))
    problem = refused(await api.post(path, json=body), 422, "TEMPLATE_NOT_ACTIVE")
    event = await ok(await api.get(f"/trigger-events/{problem['eventRecordId']}"))
    assert (event["dedupeKey"], event["deliveries"][0]["code"]) == (body["eventId"], "TEMPLATE_NOT_ACTIVE")
    again = refused(await api.post(path, json=body), 422, "TEMPLATE_NOT_ACTIVE")
    assert again["eventRecordId"] == problem["eventRecordId"]

    await ok(await api.post(f"/versions/{version['id']}/activate"))
    delivered = await ok(await api.post(f"/trigger-events/{problem['eventRecordId']}/redeliver"), 202)
    assert [each["status"] for each in delivered["deliveries"]] == ["STARTED"]


async def test_another_content_under_the_key_of_an_event_names_the_event_that_is_there(api: httpx.AsyncClient) -> None:
    body = purchase(await link(api, await active_template(api)))
    first = await ok(await api.post(PURCHASES, json=body), 202)
    problem = refused(await api.post(PURCHASES, json=body | {"context": {}}), 409, "IDEMPOTENCY_CONFLICT")
    assert problem["eventRecordId"] == first["eventRecordId"]


async def test_an_event_for_which_there_is_no_room_is_named(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    await ok(await api.patch(f"/templates/{template['id']}", json={"limits": {"openExecutions": 1}}))
    entity_id = await link(api, template)
    await ok(await api.post(PURCHASES, json=purchase(entity_id, context={"do": "wait"})), 202)
    answer = await api.post(PURCHASES, json=purchase(entity_id))
    problem = refused(answer, 429, "CONCURRENCY_LIMITED")
    assert "retry-after" in answer.headers
    event = await ok(await api.get(f"/trigger-events/{problem['eventRecordId']}"))
    assert event["deliveries"][0]["code"] == "CONCURRENCY_LIMITED"


async def test_a_test_of_a_trigger_that_uses_a_key_twice_names_the_first_event(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": uuid4().hex}
    first = await ok(await api.post("/registry/triggers/manual/test", json={"payload": {"n": 1}}, headers=key), 202)
    second = await api.post("/registry/triggers/manual/test", json={"payload": {"n": 2}}, headers=key)
    assert refused(second, 409, "IDEMPOTENCY_CONFLICT")["eventRecordId"] == first["eventRecordId"]


async def test_a_webhook_that_waits_for_an_execution_that_fails_is_told_the_event(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    endpoint = await create_webhook(api, response={"mode": "SYNC"})
    subscription: Json = {"triggerKey": endpoint["triggerKey"], "context": {"type": "const", "value": {"do": "fail"}}}
    await ok(await api.post("/subscriptions", json={"templateId": template["id"], **subscription}), 201)
    problem = refused(await api.post(f"/hooks/{endpoint['path']}", json={}), 500, "EXECUTION_FAILED")
    event = await ok(await api.get(f"/trigger-events/{problem['eventRecordId']}"))
    assert event["triggerKey"] == endpoint["triggerKey"]


async def test_a_refusal_of_what_was_not_stored_names_nothing(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    problem = refused(await api.post(f"/templates/{template['id']}/execute", json={}), 422, "TEMPLATE_NOT_ACTIVE")
    assert "eventRecordId" not in problem
    assert "eventRecordId" not in refused(await api.post(PURCHASES, json={}), 422, "REQUEST_INVALID")


async def test_a_start_by_hand_whose_key_was_used_names_the_event_of_the_first(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    await activate(api, template)
    key, path = {"Idempotency-Key": uuid4().hex}, f"/templates/{template['id']}/execute"
    first = await ok(await api.post(path, json={}, headers=key), 202)
    execution = await ok(await api.get(f"/executions/{first['executionId']}"))
    second = await api.post(path, json={"context": {"other": 1}}, headers=key)
    problem = refused(second, 409, "IDEMPOTENCY_CONFLICT")
    assert problem["eventRecordId"] == execution["trigger"]["eventRecordId"]


async def test_refusals_that_come_at_once_name_one_event(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    body = purchase(await link(api, template))
    answers = await asyncio.gather(*(api.post(PURCHASES, json=body) for _ in range(10)))
    assert len({refused(answer, 422, "TEMPLATE_NOT_ACTIVE")["eventRecordId"] for answer in answers}) == 1
