"""One deed on many executions."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import update
from sqlmodel import col
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.converter import DataConverter

from app.contracts import CloseExecution
from app.db.session import Database
from app.db.tables import Incident, WorkflowExecution
from app.executions.bulk_schemas import BulkMigrateRequest
from app.executions.lifecycle import close_execution
from app.main import create_app
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import Serve, served
from tests.app.scenes import PLAIN, Json, active_template, ok, publish, refused
from tests.app.steering import ANN, FakeRepair, asked, audit, failed, row_of, start

pytestmark = pytest.mark.usefixtures("stand_in")


async def several(api: httpx.AsyncClient, count: int) -> tuple[Json, list[str]]:
    """A template with so many running executions, the newest first."""
    template = await active_template(api)
    return template, [await start(api, template) for _ in range(count)][::-1]


async def test_a_deed_is_done_to_all_that_match_with_a_result_for_each(
    api: httpx.AsyncClient, temporal_client: Client
) -> None:
    template, ids = await several(api, 3)
    _, [other] = await several(api, 1)
    await ok(await api.post(f"/executions/{ids[0]}/pause"))
    body = {"filter": {"template": template["slug"]}, "reason": "inventory"}
    answer = await ok(await api.post("/executions/bulk/pause", json=body, headers=ANN))
    assert [(one["executionId"], one["ok"], one["result"]) for one in answer["results"]] == [
        (ids[0], True, "UNCHANGED"),
        (ids[1], True, "APPLIED"),
        (ids[2], True, "APPLIED"),
    ]
    assert (answer["matched"], answer["done"], answer["refused"], answer["nextCursor"]) == (3, 3, 0, None)
    assert await asked(temporal_client, other) == []
    for execution_id in ids:
        event = (await audit(api, execution_id))[0]
        assert (event["action"], event["actor"], event["reason"]) == ("PAUSE", "ann", "inventory")
    [event] = (await ok(await api.get("/audit", params={"action": "BULK_PAUSE"})))["items"]
    assert (event["after"], event["reason"]) == ({"matched": 3, "done": 3, "refused": 0}, "inventory")
    assert event["request"]["filter"] == {"template": template["slug"]}


async def test_a_dry_run_does_nothing_and_says_what_matches(api: httpx.AsyncClient, temporal_client: Client) -> None:
    template, ids = await several(api, 2)
    body = {"filter": {"template": template["id"]}, "dryRun": True}
    answer = await ok(await api.post("/executions/bulk/terminate", json=body))
    assert (answer["matched"], answer["done"], answer["dryRun"]) == (2, 0, True)
    assert {one["result"] for one in answer["results"]} == {"MATCHED"}
    found = await temporal_client.get_workflow_handle(f"execution/{ids[0]}").describe()
    assert found.status == WorkflowExecutionStatus.RUNNING
    assert await audit(api, ids[0]) == []


async def test_a_limit_leaves_the_rest_to_the_next_call(api: httpx.AsyncClient) -> None:
    template, ids = await several(api, 5)
    body: Json = {"filter": {"template": template["slug"]}, "limit": 2, "name": "go", "payload": 1}
    reached: list[str] = []
    while True:
        answer = await ok(await api.post("/executions/bulk/signal", json=body))
        assert len(answer["results"]) <= 2
        assert {one["result"] for one in answer["results"]} == {"DELIVERED"}
        reached += [one["executionId"] for one in answer["results"]]
        if answer["nextCursor"] is None:
            break
        body["cursor"] = answer["nextCursor"]
    assert reached == ids


async def test_one_refusal_does_not_stop_the_others(api: httpx.AsyncClient, database: Database) -> None:
    _, ids = await several(api, 3)
    await ok(await api.post(f"/executions/{ids[1]}/terminate"))
    answer = await ok(await api.post("/executions/bulk/terminate", json={"filter": {"ids": ids}}))
    assert [one["result"] for one in answer["results"]] == ["TERMINATED", "EXECUTION_ENDED", "TERMINATED"]
    assert (answer["done"], answer["refused"]) == (2, 1)
    assert answer["results"][1]["message"]
    assert {(await row_of(database, execution_id)).closed_as for execution_id in ids} == {"TERMINATED"}


async def test_closed_executions_are_left_out_unless_they_are_named(api: httpx.AsyncClient) -> None:
    template, ids = await several(api, 2)
    await ok(await api.post(f"/executions/{ids[0]}/terminate"))
    body = {"filter": {"template": template["slug"]}}
    answer = await ok(await api.post("/executions/bulk/cancel", json=body))
    assert [(one["executionId"], one["result"]) for one in answer["results"]] == [(ids[1], "REQUESTED")]


async def test_failed_executions_are_what_a_bulk_retry_means(
    api: httpx.AsyncClient, database: Database, temporal_client: Client
) -> None:
    template, _ = await several(api, 1)
    failed = await start(api, template, "fail")
    with pytest.raises(Exception, match="Workflow execution failed"):
        await temporal_client.get_workflow_handle(f"execution/{failed}").result()
    close = {"executionId": failed, "closedAs": "FAILED", "endedAt": datetime.now(UTC).isoformat()}
    async with database.driver() as connection:
        assert await close_execution(connection, CloseExecution.model_validate(close))
    body = {"filter": {"template": template["slug"]}, "dryRun": True}
    answer = await ok(await api.post("/executions/bulk/retry", json=body))
    assert [one["executionId"] for one in answer["results"]] == [failed]


async def test_a_step_of_many_is_steered_and_each_is_audited(api: httpx.AsyncClient, temporal_client: Client) -> None:
    template, ids = await several(api, 2)
    body: Json = {"filter": {"template": template["slug"]}, "stepId": "confirm", "reason": "at last"}
    answer = await ok(await api.post("/executions/bulk/skip-timer", json=body, headers=ANN))
    assert [(one["executionId"], one["result"]) for one in answer["results"]] == [(one, "APPLIED") for one in ids]
    answer = await ok(await api.post("/executions/bulk/skip-timer", json={**body, "visit": 2}))
    assert {one["result"] for one in answer["results"]} == {"NO_TIMER"}
    data = {"signedBy": "bob"}
    answer = await ok(await api.post("/executions/bulk/resume-step", json={**body, "data": data}, headers=ANN))
    assert {one["result"] for one in answer["results"]} == {"APPLIED"}
    for execution_id in ids:
        said = await asked(temporal_client, execution_id)
        assert [(one["what"], one["step_id"], one["data"]) for one in said] == [
            ("SKIP_TIMER", "confirm", None),
            ("RESUME_STEP", "confirm", data),
        ]
        assert [(one["action"], one["result"]) for one in await audit(api, execution_id)] == [
            ("RESUME_STEP", "APPLIED"),
            ("SKIP_TIMER", "NO_TIMER"),
            ("SKIP_TIMER", "APPLIED"),
        ]
    for action, count in (("BULK_SKIP_TIMER", 2), ("BULK_RESUME_STEP", 1)):
        assert len((await ok(await api.get("/audit", params={"action": action})))["items"]) == count


async def park(database: Database, execution_id: str, step_id: str = "confirm") -> None:
    """Writes down that a step is parked, as its run would."""
    async with database.transaction() as session:
        key, at = f"{step_id}#1", datetime.now(UTC)
        session.add(
            Incident(
                execution_id=UUID(execution_id),
                key=key,
                step_id=step_id,
                visit=1,
                code="DOWN",
                message="",
                opened_at=at,
            )
        )


async def test_incidents_of_many_are_resolved_where_there_are_some(
    api: httpx.AsyncClient, database: Database, temporal_client: Client
) -> None:
    template, [parked, elsewhere, fine] = await several(api, 3)
    await park(database, parked)
    await park(database, elsewhere, "other")
    body: Json = {"filter": {"template": template["slug"]}, "stepId": "confirm", "action": "retry", "parameters": None}
    found = await ok(await api.post("/executions/bulk/incident", json={**body, "dryRun": True}))
    assert [one["executionId"] for one in found["results"]] == [parked]
    answer = await ok(await api.post("/executions/bulk/incident", json=body, headers=ANN))
    assert [(one["executionId"], one["result"]) for one in answer["results"]] == [(parked, "APPLIED")]
    [said] = await asked(temporal_client, parked)
    assert (said["what"], said["edit_parameters"], said["actor"]) == ("RETRY_INCIDENT", True, "ann")
    assert [await asked(temporal_client, one) for one in (elsewhere, fine)] == [[], []]
    # Those that are named are asked, whatever the rows say.
    named: Json = {"filter": {"ids": [fine]}, "stepId": "confirm", "action": "complete", "output": 1}
    assert (await ok(await api.post("/executions/bulk/incident", json=named)))["done"] == 1
    misplaced = await api.post("/executions/bulk/incident", json={**named, "action": "fail"})
    refused(misplaced, 422, "REQUEST_INVALID")
    assert len((await ok(await api.get("/audit", params={"action": "BULK_RESOLVE_INCIDENT"})))["items"]) == 2


async def test_children_are_meant_where_a_step_is(api: httpx.AsyncClient, database: Database) -> None:
    template, [parent, child] = await several(api, 2)
    async with database.transaction() as session:
        change = update(WorkflowExecution).where(col(WorkflowExecution.id) == UUID(child))
        await session.execute(change.values(parent_id=UUID(parent), root_id=UUID(parent)))
    body: Json = {"filter": {"template": template["slug"]}, "stepId": "confirm", "dryRun": True}
    assert (await ok(await api.post("/executions/bulk/skip-timer", json=body)))["matched"] == 2
    body["filter"]["rootOnly"] = True
    assert (await ok(await api.post("/executions/bulk/skip-timer", json=body)))["matched"] == 1


async def failed_row(api: httpx.AsyncClient, database: Database, temporal_client: Client, template: Json) -> str:
    return await failed(api, database, template, temporal_client, {"wait": False})


async def test_failed_executions_are_replayed_each_once_under_a_key(
    api: httpx.AsyncClient, database: Database, temporal_client: Client
) -> None:
    template, _ = await several(api, 1)
    ids = [await failed_row(api, database, temporal_client, template) for _ in range(2)][::-1]
    body: Json = {"filter": {"template": template["slug"], "status": "COMPLETED"}, "name": "again"}
    keyed = ANN | {"Idempotency-Key": "once more"}
    answer = await ok(await api.post("/executions/bulk/replay", json=body, headers=keyed))
    assert [(one["executionId"], one["result"]) for one in answer["results"]] == [(one, "STARTED") for one in ids]
    again = await ok(await api.post("/executions/bulk/replay", json=body, headers=keyed))
    replays = {one["executionId"]: one["replayId"] for one in answer["results"]}
    assert {one["executionId"]: one["replayId"] for one in again["results"] if one["executionId"] in replays} == replays
    for execution_id, replay_id in replays.items():
        [turn] = (await ok(await api.get(f"/executions/{replay_id}/lineage")))["items"]
        assert (turn["kind"], turn["sourceId"]) == ("REPLAY", execution_id)
        assert (await row_of(database, replay_id)).name == "again"
    assert len((await ok(await api.get("/audit", params={"action": "BULK_REPLAY"})))["items"]) == 2


async def test_executions_that_are_named_are_replayed_however_they_have_ended(api: httpx.AsyncClient) -> None:
    _, ids = await several(api, 2)
    await ok(await api.post(f"/executions/{ids[0]}/terminate"))
    answer = await ok(await api.post("/executions/bulk/replay", json={"filter": {"ids": ids}}))
    assert [(one["executionId"], one["result"]) for one in answer["results"]] == [(one, "STARTED") for one in ids]
    retried = await ok(await api.post("/executions/bulk/retry", json={"filter": {"ids": ids[1:]}}))
    assert [(one["executionId"], one["result"]) for one in retried["results"]] == [(ids[1], "EXECUTION_OPEN")]


async def test_failed_executions_go_on_from_a_step(
    settings: Settings, database: Database, temporal: Temporal, temporal_client: Client
) -> None:
    app = create_app(settings, database, temporal, FakeRepair())
    async with served(app) as api:
        template, _ = await several(api, 1)
        ids = [await failed_row(api, database, temporal_client, template) for _ in range(2)][::-1]
        body: Json = {"filter": {"template": template["slug"]}, "stepId": "note", "output": None, "reason": "by hand"}
        answer = await ok(await api.post("/executions/bulk/resume-from", json=body, headers=ANN))
        assert [(one["executionId"], one["result"]) for one in answer["results"]] == [(one, "STARTED") for one in ids]
        for execution_id in ids:
            result = await temporal_client.get_workflow_handle(f"execution/{execution_id}").result()
            assert result["state"]["from"] == {"step_id": "note", "output": None, "reason": "by hand"}
            [event] = [one for one in await audit(api, execution_id) if one["action"] == "RESUME_FROM"]
            assert (event["actor"], event["reason"]) == ("ann", "by hand")
            assert event["request"] == {"stepId": "note", "output": None}


async def test_a_bulk_migration_is_tried_out_run_by_run(api: httpx.AsyncClient, database: Database) -> None:
    template, ids = await several(api, 2)
    unfit = await publish(api, template, version="3.0.0")
    body: Json = {"filter": {"template": template["slug"]}, "versionId": unfit["id"], "dryRun": True}
    answer = await ok(await api.post("/executions/bulk/migrate", json=body))
    assert [one["result"] for one in answer["results"]] == ["NEEDS_MAPPING"] * 2
    answer = await ok(await api.post("/executions/bulk/migrate", json={**body, "dryRun": False}))
    assert (answer["refused"], answer["results"][0]["result"]) == (2, "MIGRATION_NEEDS_MAPPING")
    fit = await publish(api, template, version="2.0.0")
    body = {"filter": {"template": template["slug"]}, "versionId": fit["id"]}
    answer = await ok(await api.post("/executions/bulk/migrate", json=body))
    assert [one["result"] for one in answer["results"]] == ["MIGRATED"] * 2
    assert str((await row_of(database, ids[0])).version_id) == fit["id"]


async def test_when_no_worker_answers_the_rest_is_not_tried(
    serve: Serve, settings: Settings, database: Database, converter: DataConverter, api: httpx.AsyncClient
) -> None:
    lonely = settings.model_copy(deep=True)
    lonely.temporal.task_queue = f"nobody-{uuid4()}"
    other = await serve(lonely, database, Temporal(lonely.temporal, converter))
    template, ids = await several(other, 12)
    began = datetime.now(UTC)
    answer = await ok(await other.post("/executions/bulk/pause", json={"filter": {"template": template["slug"]}}))
    assert {one["result"] for one in answer["results"]} == {"WORKER_UNAVAILABLE"}
    assert answer["refused"] == 12
    assert datetime.now(UTC) - began < timedelta(seconds=19)
    assert await audit(api, ids[-1]) == []


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("cancel", {"filter": {}}, "FILTER_EMPTY"),
        ("cancel", {}, "REQUEST_INVALID"),
        ("cancel", {"filter": {"color": "red"}}, "REQUEST_INVALID"),
        ("cancel", {"filter": {"status": "STARTED"}, "limit": 1001}, "REQUEST_INVALID"),
        ("cancel", {"filter": {"ids": []}}, "REQUEST_INVALID"),
        ("cancel", {"filter": {"status": "STARTED"}, "cursor": "x"}, "CURSOR_INVALID"),
        ("pause", {"filter": {"status": "STARTED"}, "compensate": False}, "REQUEST_INVALID"),
        ("signal", {"filter": {"status": "STARTED"}}, "REQUEST_INVALID"),
        ("migrate", {"filter": {"status": "STARTED"}}, "REQUEST_INVALID"),
    ],
)
async def test_a_bulk_form_that_does_not_say_what_is_meant_is_refused(
    api: httpx.AsyncClient, path: str, body: Json, code: str
) -> None:
    refused(await api.post(f"/executions/bulk/{path}", json=body), 422, code)


async def test_single_executions_of_a_bulk_migration_may_have_a_mapping_of_their_own(
    api: httpx.AsyncClient, database: Database
) -> None:
    template, ids = await several(api, 2)
    version = await publish(api, template, version="3.0.0")
    body = {
        "filter": {"template": template["slug"]},
        "versionId": version["id"],
        "overrides": {ids[0]: {"mapping": {"note": "note"}}},
    }
    answer = await ok(await api.post("/executions/bulk/migrate", json=body))
    assert [one["result"] for one in answer["results"]] == ["MIGRATED", "MIGRATION_NEEDS_MAPPING"]
    [turn] = (await ok(await api.get(f"/executions/{ids[0]}/lineage")))["items"]
    assert turn["toVersionId"] == version["id"]
    assert (await audit(api, ids[0]))[0]["request"]["mapping"] == {"note": "note"}
    unfit = {**body, "overrides": {"someone": {}}}
    refused(await api.post("/executions/bulk/migrate", json=unfit), 422, "REQUEST_INVALID")


@pytest.mark.parametrize("dry_run", [True, False])
async def test_overrides_of_executions_that_do_not_match_are_refused_before_anything_is_done(
    api: httpx.AsyncClient, database: Database, dry_run: bool
) -> None:
    template, [one, other] = await several(api, 2)
    version = await publish(api, template, version="2.0.0")
    stranger = str(uuid4())
    body = {
        "filter": {"ids": [one]},
        "versionId": version["id"],
        "overrides": {one: {}, other: {}, stranger: {}},
        "dryRun": dry_run,
    }
    problem = refused(await api.post("/executions/bulk/migrate", json=body), 422, "OVERRIDES_UNMATCHED")
    assert {item["path"] for item in problem["problems"]} == {f"overrides.{other}", f"overrides.{stranger}"}
    assert str((await row_of(database, one)).version_id) != version["id"]


async def test_a_bulk_migration_in_pages_or_repeated_takes_the_overrides_of_those_that_have_been_migrated(
    api: httpx.AsyncClient,
) -> None:
    template, ids = await several(api, 2)
    old = (await ok(await api.get(f"/executions/{ids[0]}")))["versionId"]
    version = await publish(api, template, version="2.0.0")
    body: Json = {
        "filter": {"template": template["slug"], "versionId": old},
        "versionId": version["id"],
        "overrides": {one: {} for one in ids},
        "limit": 1,
    }
    first = await ok(await api.post("/executions/bulk/migrate", json=body))
    rest = await ok(await api.post("/executions/bulk/migrate", json={**body, "cursor": first["nextCursor"]}))
    assert [one["executionId"] for one in first["results"] + rest["results"]] == ids
    again = await ok(await api.post("/executions/bulk/migrate", json=body))
    assert again["results"] == []


async def test_a_bulk_mapping_may_name_steps_of_any_version_of_the_template_and_no_others(
    api: httpx.AsyncClient,
) -> None:
    template, _ = await several(api, 1)
    other = copy.deepcopy(PLAIN)
    other["steps"][1]["id"] = other["stepTransitions"][0]["toStepId"] = "remark"
    other["stepTransitions"][1]["fromStepId"] = "remark"
    await publish(api, template, other, version="1.1.0")
    version = await publish(api, template, version="2.0.0")
    body: Json = {"filter": {"template": template["slug"]}, "versionId": version["id"], "mapping": {"nope": "note"}}
    problem = refused(await api.post("/executions/bulk/migrate", json=body), 422, "MAPPING_UNKNOWN")
    assert [item["path"] for item in problem["problems"]] == ["mapping.nope"]
    body["mapping"] = {"remark": "note", "note": "note"}
    answer = await ok(await api.post("/executions/bulk/migrate", json=body))
    assert [one["result"] for one in answer["results"]] == ["MIGRATED"]


def test_what_goes_over_the_mapping_of_all_is_taken_name_by_name() -> None:
    one, other = uuid4(), uuid4()
    request = BulkMigrateRequest.model_validate(
        {
            "filter": {"template": "t"},
            "versionId": uuid4(),
            "mapping": {"a": "b", "c": "d"},
            "overrides": {one: {"mapping": {"a": "a"}}},
        }
    )
    assert request.mapping_of(one) == {"a": "a", "c": "d"}
    assert request.mapping_of(other) == {"a": "b", "c": "d"}


@pytest.mark.parametrize("moment", ["2026", "1e9", 2026, 0.5, "2026-11-21", "2026-11-21T10:00:00"])
async def test_a_number_is_no_time(api: httpx.AsyncClient, moment: Any) -> None:
    body = {"filter": {"createdAfter": moment}, "dryRun": True}
    refused(await api.post("/executions/bulk/cancel", json=body), 422, "REQUEST_INVALID")
