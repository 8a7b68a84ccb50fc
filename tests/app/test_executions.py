"""Reading, completing and cancelling executions, with a worker that speaks the contracts."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import update
from sqlmodel import col
from temporalio.client import Client, WorkflowExecutionStatus

from app.contracts import ChildToRegister, CloseExecution, RegisterChildren
from app.db.session import Database
from app.db.tables import WorkflowExecution
from app.executions.lifecycle import close_execution, register_children
from tests.app.scenes import Json, active_template, link, ok, purchase, refused

pytestmark = pytest.mark.usefixtures("stand_in")


async def _start(api: httpx.AsyncClient, template: Json, do: str = "wait") -> str:
    answer = await api.post(f"/templates/{template['id']}/execute", json={"context": {"do": do}})
    return str((await ok(answer, 202))["executionId"])


async def _ended(api: httpx.AsyncClient, template: Json, do: str) -> str:
    path = f"/templates/{template['id']}/execute?wait=PT20S"
    answer = await api.post(path, json={"context": {"do": do}})
    return str((await ok(answer))["executionId"])


async def _close_row(database: Database, execution_id: str, closed_as: str) -> None:
    request = CloseExecution.model_validate(
        {"executionId": execution_id, "closedAs": closed_as, "endedAt": datetime.now(UTC).isoformat()}
    )
    async with database.driver() as connection:
        assert await close_execution(connection, request)


async def test_a_running_execution_says_what_it_waits_for(api: httpx.AsyncClient, template: Json) -> None:
    entity_id = await link(api, template)
    body = purchase(entity_id, context={"do": "wait"}, name="Mine")
    execution_id = (await ok(await api.post("/triggers/product-purchases", json=body), 202))["executionId"]
    read = await ok(await api.get(f"/executions/{execution_id}"))
    waiting = read.pop("waitingFor")
    assert [(item["stepId"], item["visit"], item["kind"], item["who"]) for item in waiting] == [
        ("confirm", 1, "PERSON", "ann")
    ]
    times = {name: read.pop(name) for name in ("createdAt", "startedAt", "endedAt")}
    assert times["createdAt"] <= times["startedAt"]
    assert times["endedAt"] is None
    assert read == {
        "id": execution_id,
        "name": "Mine",
        "templateId": template["id"],
        "template": template["slug"],
        "versionId": read["versionId"],
        "version": "1.0.0",
        "parentId": None,
        "rootId": execution_id,
        "status": "STARTED",
        "runtimeStatus": "IN_PROGRESS",
        "entityType": "PRODUCT",
        "entityId": entity_id,
        "trigger": read["trigger"],
        "temporalUi": f"http://ui.example/namespaces/default/workflows/execution%2F{execution_id}",
    }


async def test_an_ended_execution_shows_its_output_before_and_after_its_row_is_closed(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    execution_id = await _ended(api, template, "finish")
    for record in ("STARTED", "COMPLETED"):
        read = await ok(await api.get(f"/executions/{execution_id}"))
        assert (read["status"], read["runtimeStatus"]) == (record, "COMPLETED")
        assert read["output"]["context"] == {"do": "finish"}
        assert read["waitingFor"] == []
        assert not {"error", "problem"} & set(read)
        if record == "STARTED":
            await _close_row(database, execution_id, "COMPLETED")


async def test_a_failed_execution_shows_its_error(api: httpx.AsyncClient, database: Database, template: Json) -> None:
    execution_id = await _ended(api, template, "fail")
    await _close_row(database, execution_id, "FAILED")
    read = await ok(await api.get(f"/executions/{execution_id}"))
    assert (read["status"], read["runtimeStatus"]) == ("COMPLETED", "FAILED")
    assert read["error"] == {"code": "NO_STOCK", "message": "nothing left", "stepId": "note"}
    assert "output" not in read
    assert read["endedAt"] is not None


async def test_a_run_whose_task_keeps_failing_says_so(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await _start(api, template, "stall")
    problem: Json = {}
    for _ in range(40):
        read = await ok(await api.get(f"/executions/{execution_id}"))
        problem = read.get("problem") or {}
        if problem.get("code") == "WORKFLOW_TASK_FAILING":
            break
        await asyncio.sleep(0.2)
    assert problem["code"] == "WORKFLOW_TASK_FAILING"
    assert problem["attempt"] > 1
    assert read["runtimeStatus"] == "IN_PROGRESS"
    await ok(await api.post(f"/executions/{execution_id}/cancel"), 202)


async def test_steps_are_read_from_the_run(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await _start(api, template)
    read = await ok(await api.get(f"/executions/{execution_id}/steps"))
    assert [(step["id"], step["status"]) for step in read["steps"]] == [("confirm", "ACTION_REQUIRED")]
    assert read["waitingFor"][0]["stepId"] == "confirm"


async def test_completing_a_step_answers_when_the_run_has_taken_note(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await _start(api, template)
    path = f"/executions/{execution_id}/steps/confirm/complete"
    headers = {"X-Millrace-Actor": "ann"}
    answer = await ok(await api.post(path, json={"outcome": "approved"}, headers=headers))
    assert answer == {
        "executionId": execution_id,
        "stepId": "confirm",
        "visit": 1,
        "status": "COMPLETED",
        "output": {"outcome": "approved", "completedBy": "ann"},
    }


async def test_a_step_that_needs_nothing_is_completed_without_a_body(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await _start(api, template)
    done = await ok(await api.post(f"/executions/{execution_id}/steps/confirm/complete"))
    assert done["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("step", "body", "status", "code"),
    [
        ("nowhere", {}, 404, "STEP_NOT_FOUND"),
        ("confirm", {"outcome": "maybe"}, 422, "OUTCOME_UNKNOWN"),
        ("confirm", {"visit": 2}, 409, "STEP_NOT_OPEN"),
        ("confirm", {"visit": 0}, 422, "REQUEST_INVALID"),
        ("confirm", {"outcome": 1}, 422, "REQUEST_INVALID"),
        ("confirm", {"decision": "yes"}, 422, "REQUEST_INVALID"),
        ("x" * 101, {}, 422, "REQUEST_INVALID"),
    ],
)
async def test_the_runs_refusals_are_passed_on(
    api: httpx.AsyncClient, template: Json, step: str, body: Json, status: int, code: str
) -> None:
    execution_id = await _start(api, template)
    answer = await api.post(f"/executions/{execution_id}/steps/{step}/complete", json=body)
    refused(answer, status, code)
    assert (await ok(await api.get(f"/executions/{execution_id}")))["runtimeStatus"] == "IN_PROGRESS"


async def test_completing_a_step_of_a_finished_run_is_refused(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    execution_id = await _ended(api, template, "finish")
    path = f"/executions/{execution_id}/steps/confirm/complete"
    refused(await api.post(path, json={}), 409, "EXECUTION_ENDED")
    await _close_row(database, execution_id, "COMPLETED")
    refused(await api.post(path, json={}), 409, "EXECUTION_ENDED")
    refused(await api.post(path, json={}, headers={"Idempotency-Key": "k"}), 409, "EXECUTION_ENDED")


async def test_a_repeated_completion_gets_the_first_answer_also_after_the_end(
    api: httpx.AsyncClient, template: Json, temporal_client: Client
) -> None:
    execution_id = await _start(api, template)
    path = f"/executions/{execution_id}/steps/confirm/complete"
    headers = {"Idempotency-Key": "once"}
    first = await ok(await api.post(path, json={"outcome": "approved"}, headers=headers))
    await temporal_client.get_workflow_handle(f"execution/{execution_id}").result()
    assert await ok(await api.post(path, json={"outcome": "approved"}, headers=headers)) == first
    refused(await api.post(path, json={"outcome": "approved"}), 409, "EXECUTION_ENDED")


async def test_cancelling_reaches_the_run_and_is_refused_once_it_is_over(
    api: httpx.AsyncClient, template: Json
) -> None:
    execution_id = await _start(api, template)
    path = f"/executions/{execution_id}"
    assert await ok(await api.post(f"{path}/cancel"), 202) == {
        "executionId": execution_id,
        "status": "STARTED",
    }
    for _ in range(50):
        read = await ok(await api.get(path))
        if read["runtimeStatus"] != "IN_PROGRESS":
            break
        await asyncio.sleep(0.1)
    assert read["runtimeStatus"] == "CANCELLED"
    assert read["error"]["code"] == "CANCELLED"
    refused(await api.post(f"{path}/cancel"), 409, "EXECUTION_ENDED")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/tree", None),
        ("GET", "/steps", None),
        ("GET", "/steps/confirm", None),
        ("GET", "/events", None),
        ("POST", "/cancel", None),
        ("POST", "/steps/confirm/complete", {}),
    ],
)
async def test_an_unknown_execution_is_not_found(
    api: httpx.AsyncClient, method: str, path: str, body: Json | None
) -> None:
    answer = await api.request(method, f"/executions/{uuid4()}{path}", json=body)
    refused(answer, 404, "EXECUTION_NOT_FOUND")
    answer = await api.request(method, f"/executions/not-an-id{path}", json=body)
    refused(answer, 404, "EXECUTION_NOT_FOUND")


async def test_the_list_is_narrowed_by_every_filter(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    entity_id = await link(api, template, "SERVICE_CATALOG")
    before = datetime.now(UTC) - timedelta(seconds=1)
    body = purchase(entity_id, context={"do": "wait"})
    running = (await ok(await api.post("/triggers/service-requests", json=body), 202))["executionId"]
    done = await _ended(api, template, "finish")
    await _close_row(database, done, "COMPLETED")
    version_id = (await ok(await api.get(f"/executions/{done}")))["versionId"]
    mine = {"template": template["slug"]}
    filters: list[tuple[dict[str, str], list[str]]] = [
        ({}, [done, running]),
        ({"template": template["id"]}, [done, running]),
        ({"templateId": template["id"]}, [done, running]),
        ({"versionId": version_id}, [done, running]),
        ({"entityType": "SERVICE_CATALOG", "entityId": entity_id}, [running]),
        ({"entityType": "PRODUCT"}, []),
        ({"status": "COMPLETED"}, [done]),
        ({"status": "STARTED"}, [running]),
        ({"rootId": running}, [running]),
        ({"parentId": running}, []),
        ({"createdAfter": before.isoformat()}, [done, running]),
        ({"createdBefore": before.isoformat()}, []),
        ({"runtimeStatus": "IN_PROGRESS"}, [running]),
        ({"runtimeStatus": "COMPLETED"}, [done]),
        ({"runtimeStatus": "FAILED"}, []),
        ({"runtimeStatus": "NOT_STARTED"}, []),
    ]
    for params, expected in filters:
        page = await ok(await api.get("/executions", params=mine | params))
        assert [item["id"] for item in page["items"]] == expected, params
        assert page["nextCursor"] is None


async def test_the_list_shows_what_temporal_says_of_open_rows(api: httpx.AsyncClient, temporal_client: Client) -> None:
    template = await active_template(api)
    execution_id = await _start(api, template)
    await temporal_client.get_workflow_handle(f"execution/{execution_id}").terminate()
    params = {"template": template["slug"]}
    for _ in range(50):
        page = await ok(await api.get("/executions", params=params))
        [item] = page["items"]
        if item["runtimeStatus"] != "IN_PROGRESS":
            break
        await asyncio.sleep(0.1)
    assert (item["status"], item["runtimeStatus"]) == ("STARTED", "TERMINATED")
    page = await ok(await api.get("/executions", params=params | {"runtimeStatus": "IN_PROGRESS"}))
    assert page["items"] == []


async def test_the_list_is_read_page_by_page_also_within_one_moment(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    made = {await _start(api, template, "finish") for _ in range(5)}
    async with database.transaction() as session:
        statement = update(WorkflowExecution).where(col(WorkflowExecution.template_id) == UUID(template["id"]))
        await session.execute(statement.values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))
    read: list[str] = []
    params = {"template": template["slug"], "limit": "2"}
    while True:
        page = await ok(await api.get("/executions", params=params))
        read += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        params["cursor"] = page["nextCursor"]
    assert (len(read), set(read)) == (5, made)


@pytest.mark.parametrize(
    "params",
    [
        {"status": "RUNNING"},
        {"runtimeStatus": "STARTED"},
        {"rootId": "x"},
        {"createdAfter": "yesterday"},
        {"createdAfter": "2026-01-01T00:00:00"},
        {"createdAfter": "2026"},
        {"createdAfter": "-1"},
        {"limit": "0"},
    ],
)
async def test_a_filter_of_the_wrong_kind_is_refused(api: httpx.AsyncClient, params: dict[str, str]) -> None:
    refused(await api.get("/executions", params=params), 422, "REQUEST_INVALID")


async def _child(database: Database, template: Json, root: str, parent: str, name: str) -> str:
    async with database.transaction() as session:
        answer = await register_children(
            session,
            RegisterChildren(
                parent_id=UUID(parent),
                root_id=UUID(root),
                step_id="s",
                attempt=1,
                template_ref=template["slug"],
                children=[ChildToRegister(key=f"s#1/{name}", context={}, name=name)],
            ),
        )
    return str(answer.children[0].execution_id)


async def test_the_tree_shows_every_descendant_under_its_parent(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    root = await _start(api, template)
    first = await _child(database, template, root, root, "first")
    second = await _child(database, template, root, root, "second")
    grandchild = await _child(database, template, root, first, "grandchild")
    await _close_row(database, grandchild, "FAILED")

    read = await ok(await api.get(f"/executions/{root}/tree"))
    assert (read["rootId"], read["count"], read["truncated"]) == (root, 4, False)
    tree = read["tree"]
    assert (tree["id"], tree["status"], tree["runtimeStatus"]) == (root, "STARTED", "IN_PROGRESS")
    assert {child["id"] for child in tree["children"]} == {first, second}
    [node] = next(child for child in tree["children"] if child["id"] == first)["children"]
    assert (node["id"], node["name"], node["parentId"]) == (grandchild, "grandchild", first)
    assert (node["status"], node["runtimeStatus"]) == ("COMPLETED", "FAILED")

    part = await ok(await api.get(f"/executions/{first}/tree"))
    assert (part["rootId"], part["count"], part["tree"]["id"]) == (root, 2, first)


async def test_a_child_that_its_parent_has_not_started_is_not_cancelled_alone(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    root = await _start(api, template)
    child = await _child(database, template, root, root, "child")
    refused(await api.post(f"/executions/{child}/cancel"), 409, "NOT_YET_STARTED")
    read = await ok(await api.get(f"/executions/{child}"))
    assert (read["status"], read["runtimeStatus"], read["waitingFor"]) == ("CREATED", "NOT_STARTED", [])
    read = await ok(await api.get(f"/executions/{child}/steps"))
    assert [(step["id"], step["status"]) for step in read["steps"]] == [
        ("start", "NOT_STARTED"),
        ("note", "NOT_STARTED"),
        ("end", "NOT_STARTED"),
    ]
    answer = await api.post(f"/executions/{child}/steps/note/complete", json={})
    refused(answer, 409, "STEP_NOT_OPEN")


async def test_temporal_itself_knows_the_run_as_cancelled(
    api: httpx.AsyncClient, template: Json, temporal_client: Client
) -> None:
    execution_id = await _start(api, template)
    answer = await api.post(f"/executions/{execution_id}/cancel", headers={"X-Millrace-Actor": "ann"})
    await ok(answer, 202)
    handle = temporal_client.get_workflow_handle(f"execution/{execution_id}")
    for _ in range(50):
        if (await handle.describe()).status == WorkflowExecutionStatus.CANCELED:
            break
        await asyncio.sleep(0.1)
    history = await handle.fetch_history()
    causes = [
        event.workflow_execution_cancel_requested_event_attributes.cause
        for event in history.events
        if event.HasField("workflow_execution_cancel_requested_event_attributes")
    ]
    assert causes == ["cancelled by ann"]
