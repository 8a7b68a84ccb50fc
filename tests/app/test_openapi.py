"""The description of the API: complete, so that clients can be made from it."""

from typing import Any

import httpx
import pytest

from app.backfills.schemas import BackfillCreate, CheckRequest, RetryRequest, RowsTaken
from app.schedules.schemas import ScheduleChange, ScheduleCreate, Spec
from app.wire import Taken

Json = dict[str, Any]

EXPECTED = {
    "POST /templates",
    "GET /templates",
    "GET /templates/{template}",
    "PATCH /templates/{template}",
    "DELETE /templates/{template}",
    "POST /templates/{template}/pause",
    "POST /templates/{template}/resume",
    "POST /templates/{template}/archive",
    "POST /templates/{template}/execute",
    "POST /templates/{template}/versions",
    "GET /templates/{template}/versions",
    "GET /versions/{version}",
    "PATCH /versions/{version}",
    "DELETE /versions/{version}",
    "POST /versions/{version}/validate",
    "POST /versions/{version}/publish",
    "POST /versions/{version}/activate",
    "POST /versions/{version}/deprecate",
    "GET /versions/{version}/plan",
    "POST /definitions/validate",
    "GET /links",
    "GET /links/{entityType}/{entityId}",
    "PUT /links/{entityType}/{entityId}",
    "DELETE /links/{entityType}/{entityId}",
    "POST /schedules",
    "GET /schedules",
    "POST /schedules/preview",
    "GET /schedules/{schedule}",
    "PATCH /schedules/{schedule}",
    "DELETE /schedules/{schedule}",
    "POST /schedules/{schedule}/pause",
    "POST /schedules/{schedule}/resume",
    "POST /schedules/{schedule}/run",
    "GET /schedules/{schedule}/next",
    "GET /schedules/{schedule}/runs",
    "POST /triggers/service-requests",
    "POST /triggers/product-purchases",
    "GET /executions",
    "GET /executions/{execution}",
    "GET /executions/{execution}/tree",
    "GET /executions/{execution}/steps",
    "GET /executions/{execution}/steps/{step}",
    "GET /executions/{execution}/events",
    "POST /executions/{execution}/steps/{step}/complete",
    "POST /executions/{execution}/cancel",
    "GET /executions/{execution}/incidents",
    "GET /executions/{execution}/audit",
    "GET /executions/{execution}/lineage",
    "POST /executions/{execution}/signals/{name}",
    "POST /executions/{execution}/pause",
    "POST /executions/{execution}/resume",
    "POST /executions/{execution}/terminate",
    "POST /executions/{execution}/steps/{step}/resume",
    "POST /executions/{execution}/steps/{step}/skip-timer",
    "POST /executions/{execution}/incidents/{step}",
    "POST /executions/{execution}/replay",
    "POST /executions/{execution}/retry",
    "POST /executions/{execution}/resume-from",
    "POST /executions/{execution}/migrate",
    "POST /executions/bulk/cancel",
    "POST /executions/bulk/terminate",
    "POST /executions/bulk/pause",
    "POST /executions/bulk/resume",
    "POST /executions/bulk/signal",
    "POST /executions/bulk/retry",
    "POST /executions/bulk/replay",
    "POST /executions/bulk/resume-from",
    "POST /executions/bulk/skip-timer",
    "POST /executions/bulk/resume-step",
    "POST /executions/bulk/incident",
    "POST /executions/bulk/migrate",
    "GET /trigger-events",
    "GET /trigger-events/{event}",
    "POST /trigger-events/{event}/redeliver",
    "GET /audit",
    "GET /incidents",
    "GET /dead-letters",
    "GET /dead-letters/{execution}",
    "POST /dead-letters/{execution}/retry",
    "POST /dead-letters/purge",
    "POST /backfills",
    "POST /backfills/check",
    "GET /backfills",
    "GET /backfills/{backfill}",
    "POST /backfills/{backfill}/rows",
    "GET /backfills/{backfill}/rows",
    "POST /backfills/{backfill}/start",
    "POST /backfills/{backfill}/pause",
    "POST /backfills/{backfill}/resume",
    "POST /backfills/{backfill}/cancel",
    "POST /backfills/{backfill}/retry",
    "POST /backfills/upload",
    "POST /webhook-endpoints",
    "GET /webhook-endpoints",
    "GET /webhook-endpoints/{endpoint}",
    "PATCH /webhook-endpoints/{endpoint}",
    "DELETE /webhook-endpoints/{endpoint}",
    "POST /webhook-endpoints/{endpoint}/rotate-secret",
    "POST /hooks/{path}",
    "GET /registry/actions",
    "POST /registry/triggers",
    "GET /registry/triggers",
    "GET /registry/triggers/{key}",
    "PATCH /registry/triggers/{key}",
    "DELETE /registry/triggers/{key}",
    "POST /registry/triggers/{key}/test",
    "GET /registry/triggers/{key}/options",
    "POST /registry/triggers/{key}/load-options",
    "POST /registry/triggers/{key}/search",
    "POST /subscriptions",
    "GET /subscriptions",
    "GET /subscriptions/{subscription}",
    "PATCH /subscriptions/{subscription}",
    "DELETE /subscriptions/{subscription}",
    "POST /subscriptions/{subscription}/activate",
    "POST /subscriptions/{subscription}/deactivate",
    "POST /subscriptions/{subscription}/explain",
    "GET /registry/actions/{key}",
    "POST /change-sources",
    "GET /change-sources",
    "GET /change-sources/{source}",
    "DELETE /change-sources/{source}",
    "POST /change-sources/{source}/pause",
    "POST /change-sources/{source}/resume",
    "POST /changes/debezium",
    "GET /health/live",
    "GET /health/ready",
}


@pytest.fixture(scope="module")
async def document(api: httpx.AsyncClient) -> Json:
    answer = await api.get("http://" + api.base_url.netloc.decode() + "/openapi.json")
    described: Json = answer.json()
    return described


def _operations(document: Json) -> list[tuple[str, Json]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_is_named_summed_up_and_filed(document: Json) -> None:
    operations = _operations(document)
    for name, operation in operations:
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
    ids = [operation["operationId"] for _, operation in operations]
    assert len(set(ids)) == len(ids)
    assert all(not operation_id.endswith("_") for operation_id in ids)


WAYS_IN = (
    "audit", "backfills", "change-sources", "changes", "hooks", "registry/triggers", "schedules", "subscriptions",
    "trigger-events", "webhook-endpoints",
)  # fmt: skip


def test_every_parameter_of_the_ways_in_is_described_and_every_list_of_them_has_pages(document: Json) -> None:
    for path, methods in document["paths"].items():
        address = path.removeprefix("/api/v1/")
        if not address.startswith(WAYS_IN):
            continue
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description"), (path, parameter["name"])
        listing = methods.get("get", {}).get("operationId", "")
        if listing.startswith("list") and listing not in ("listScheduleTimes", "listTriggerOptions"):
            names = {parameter["name"] for parameter in methods["get"]["parameters"]}
            assert {"cursor", "limit"} <= names, path
            [content] = methods["get"]["responses"]["200"]["content"].values()
            assert content["schema"]["$ref"].rpartition("/")[2].startswith("Page_"), path


def test_every_success_has_a_schema(document: Json) -> None:
    for name, operation in _operations(document):
        successes = {status: answer for status, answer in operation["responses"].items() if status < "300"}
        assert successes, name
        for status, answer in successes.items():
            if status != "204":
                [content] = answer["content"].values()
                assert content["schema"], name


def test_every_refusal_is_described_as_a_problem(document: Json) -> None:
    for name, operation in _operations(document):
        if name.startswith("GET /health"):
            continue
        refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"400", "413", "422", "500", "503"} <= set(refusals), name
        for answer in refusals.values():
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ProblemDetails"}, name


def test_every_reference_leads_somewhere(document: Json) -> None:
    schemas = document["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert schemas["ProblemDetails"]["properties"]["code"]

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str):
                assert reference.removeprefix("#/components/schemas/") in schemas, reference
            for member in value.values():
                walk(member)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)


@pytest.mark.parametrize(
    "shape", [Spec, ScheduleCreate, ScheduleChange, BackfillCreate, RowsTaken, CheckRequest, RetryRequest]
)
def test_every_example_is_a_request_that_is_taken(document: Json, shape: type[Taken]) -> None:
    examples = document["components"]["schemas"][shape.__name__]["examples"]
    assert examples
    for example in examples:
        shape.model_validate(example)


def test_everything_the_api_is_to_offer_is_there(document: Json) -> None:
    offered = {name.replace("/api/v1", "") for name, _ in _operations(document)}
    assert offered == EXPECTED
