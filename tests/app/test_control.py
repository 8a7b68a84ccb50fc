"""Steering one execution, with a worker that speaks the contracts; each deed is in the audit."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.converter import DataConverter

from app.contracts import ChildToRegister, CloseExecution, RegisterChildren, RegisteredChildren
from app.db.session import Database
from app.executions.lifecycle import close_execution, mark_started, register_children
from app.run_contracts import ControlRequest
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, ok, publish, refused
from tests.app.steering import ANN, asked, audit, row_of, start

pytestmark = pytest.mark.usefixtures("stand_in")


@pytest.mark.parametrize(("name", "status"), [("go", "DELIVERED"), ("later", "BUFFERED")])
async def test_a_signal_reaches_the_run_with_its_payload_key_and_receipt(
    api: httpx.AsyncClient, template: Json, temporal_client: Client, name: str, status: str
) -> None:
    execution_id = await start(api, template)
    path = f"/executions/{execution_id}/signals/{name}"
    answer = await api.post(path, json=[1, {"a": None}], params={"correlationKey": "k"}, headers=ANN)
    assert await ok(answer) == {"executionId": execution_id, "name": name, "status": status}
    assert await asked(temporal_client, execution_id) == [
        {"name": name, "payload": [1, {"a": None}], "correlation_key": "k", "id": None, "actor": "ann"}
    ]
    [event] = await audit(api, execution_id)
    assert (event["action"], event["actor"], event["result"]) == ("SIGNAL", "ann", status)
    assert event["request"] == {"name": name, "correlationKey": "k", "payload": [1, {"a": None}]}


async def test_a_signal_without_a_body_has_a_null_payload(
    api: httpx.AsyncClient, template: Json, temporal_client: Client
) -> None:
    execution_id = await start(api, template)
    await ok(await api.post(f"/executions/{execution_id}/signals/go"))
    [one] = await asked(temporal_client, execution_id)
    assert one["payload"] is None


async def test_a_signal_repeated_with_its_key_is_one_signal_also_after_the_end(
    api: httpx.AsyncClient, template: Json, temporal_client: Client
) -> None:
    execution_id = await start(api, template)
    path = f"/executions/{execution_id}/signals/go"
    headers = {"Idempotency-Key": "once"}
    first = await ok(await api.post(path, json=1, headers=headers))
    assert await ok(await api.post(path, json=1, headers=headers)) == first
    [one] = await asked(temporal_client, execution_id)
    assert one["id"] == "once"
    await ok(await api.post(f"/executions/{execution_id}/steps/confirm/complete", json={}))
    await temporal_client.get_workflow_handle(f"execution/{execution_id}").result()
    assert await ok(await api.post(path, json=1, headers=headers)) == first
    refused(await api.post(path, json=1), 409, "EXECUTION_ENDED")


async def test_a_signal_that_nobody_hears_is_refused_and_the_refusal_is_audited(
    api: httpx.AsyncClient, template: Json
) -> None:
    execution_id = await start(api, template)
    refused(await api.post(f"/executions/{execution_id}/signals/unheard", json={}), 422, "SIGNAL_UNKNOWN")
    [event] = await audit(api, execution_id)
    assert (event["result"], event["reason"]) == ("SIGNAL_UNKNOWN", "nobody listens")


async def test_pausing_twice_changes_nothing_the_second_time(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await start(api, template)
    answers = [
        await ok(await api.post(f"/executions/{execution_id}/{word}", json={"reason": "audit day"}, headers=ANN))
        for word in ("pause", "pause", "resume")
    ]
    assert [answer["status"] for answer in answers] == ["APPLIED", "UNCHANGED", "APPLIED"]
    assert answers[0] == {"executionId": execution_id, "status": "APPLIED"}
    found = [(event["action"], event["result"], event["reason"]) for event in await audit(api, execution_id)]
    assert found == [
        ("RESUME", "APPLIED", "audit day"),
        ("PAUSE", "UNCHANGED", "audit day"),
        ("PAUSE", "APPLIED", "audit day"),
    ]


@pytest.mark.parametrize(
    ("path", "body", "request_sent"),
    [
        ("steps/confirm/resume", {"data": {"n": 1}}, {"what": "RESUME_STEP", "data": {"n": 1}}),
        ("steps/confirm/skip-timer", {"visit": 1, "item": 3}, {"what": "SKIP_TIMER", "visit": 1, "item": 3}),
        ("incidents/confirm", {"action": "retry"}, {"what": "RETRY_INCIDENT"}),
        (
            "incidents/confirm",
            {"action": "retry", "parameters": None},
            {"what": "RETRY_INCIDENT", "parameters": None, "edit_parameters": True},
        ),
        ("incidents/confirm", {"action": "complete", "output": 7}, {"what": "COMPLETE_INCIDENT", "output": 7}),
        ("incidents/confirm", {"action": "fail", "reason": "no use"}, {"what": "FAIL_INCIDENT", "reason": "no use"}),
    ],
)
async def test_a_step_is_steered_by_one_request_to_its_run(
    api: httpx.AsyncClient, template: Json, temporal_client: Client, path: str, body: Json, request_sent: Json
) -> None:
    execution_id = await start(api, template)
    answer = await ok(await api.post(f"/executions/{execution_id}/{path}", json=body, headers=ANN))
    assert (answer["status"], answer["stepId"]) == ("APPLIED", "confirm")
    [sent] = await asked(temporal_client, execution_id)
    assert sent == ControlRequest(step_id="confirm", actor="ann", **request_sent).model_dump(mode="json")
    [event] = await audit(api, execution_id)
    assert (event["action"], event["result"]) == (request_sent["what"], "APPLIED")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("steps/nowhere/resume", {}, 404, "STEP_NOT_FOUND"),
        ("steps/confirm/skip-timer", {"visit": 2}, 409, "NO_TIMER"),
        ("steps/confirm/skip-timer", {"visit": 0}, 422, "REQUEST_INVALID"),
        ("incidents/nowhere", {"action": "retry"}, 404, "STEP_NOT_FOUND"),
        ("incidents/confirm", {"action": "shrug"}, 422, "REQUEST_INVALID"),
        ("incidents/confirm", {}, 422, "REQUEST_INVALID"),
        ("incidents/confirm", {"action": "retry", "output": 1}, 422, "REQUEST_INVALID"),
        ("incidents/confirm", {"action": "fail", "output": 1}, 422, "REQUEST_INVALID"),
        ("incidents/confirm", {"action": "complete", "output": 1, "parameters": {}}, 422, "REQUEST_INVALID"),
        ("pause", {"until": "tomorrow"}, 422, "REQUEST_INVALID"),
    ],
)
async def test_what_does_not_apply_is_refused_with_the_runs_own_code(
    api: httpx.AsyncClient, template: Json, path: str, body: Json, status: int, code: str
) -> None:
    execution_id = await start(api, template)
    refused(await api.post(f"/executions/{execution_id}/{path}", json=body), status, code)


@pytest.mark.parametrize("word", ["pause", "resume", "signals/go", "cancel", "terminate", "retry", "replay"])
async def test_an_unknown_execution_is_not_steered(api: httpx.AsyncClient, word: str) -> None:
    refused(await api.post(f"/executions/{uuid4()}/{word}"), 404, "EXECUTION_NOT_FOUND")


async def test_without_a_worker_the_caller_is_told_so_and_the_audit_too(
    serve: Serve,
    settings: Settings,
    database: Database,
    converter: DataConverter,
    template: Json,
    api: httpx.AsyncClient,
) -> None:
    lonely = settings.model_copy(deep=True)
    lonely.temporal.task_queue = f"nobody-{uuid4()}"
    other = await serve(lonely, database, Temporal(lonely.temporal, converter))
    execution_id = await start(other, template)
    refused(await other.post(f"/executions/{execution_id}/pause"), 503, "WORKER_UNAVAILABLE")
    [event] = await audit(api, execution_id)
    assert (event["action"], event["result"]) == ("PAUSE", "WORKER_UNAVAILABLE")
    # A cancel with compensation is Temporal's own and needs nobody; neither does a terminate.
    await ok(await other.post(f"/executions/{execution_id}/cancel"), 202)
    await ok(await other.post(f"/executions/{execution_id}/terminate"))


async def test_a_cancel_without_compensation_is_asked_of_the_run(
    api: httpx.AsyncClient, template: Json, temporal_client: Client
) -> None:
    execution_id = await start(api, template)
    body = {"compensate": False, "reason": "wrong house"}
    assert await ok(await api.post(f"/executions/{execution_id}/cancel", json=body, headers=ANN), 202) == {
        "executionId": execution_id,
        "status": "STARTED",
    }
    [sent] = await asked(temporal_client, execution_id)
    assert (sent["what"], sent["compensate"], sent["reason"]) == ("CANCEL", False, "cancelled by ann: wrong house")
    [event] = await audit(api, execution_id)
    assert event["request"] == {"compensate": False, "includeDetached": False}
    assert (event["action"], event["result"], event["before"]) == ("CANCEL", "DONE", {"status": "STARTED"})


async def _children(
    database: Database, template: Json, parent: str, root: str, *names: str, detached: bool
) -> RegisteredChildren:
    async with database.transaction() as session:
        return await register_children(
            session,
            RegisterChildren(
                parent_id=UUID(parent),
                root_id=UUID(root),
                step_id="s",
                attempt=1,
                template_ref=template["slug"],
                detached=detached,
                children=[ChildToRegister(key=f"s#1/{name}", context={}, name=name) for name in names],
            ),
        )


async def _family(
    api: httpx.AsyncClient,
    database: Database,
    template: Json,
    client: Client,
    task_queue: str,
    *,
    detached: bool = False,
) -> tuple[str, str, str]:
    """A root with a running child and one that it has not started yet."""
    root = await start(api, template)
    answer = await _children(database, template, root, root, "running", "waiting", detached=detached)
    running, waiting = (str(child.execution_id) for child in answer.children)
    body = {
        "executionId": running,
        "name": "running",
        "rootId": root,
        "parentId": root,
        "templateId": template["id"],
        "template": template["slug"],
        "versionId": str(answer.children[0].version_id),
        "version": "1.0.0",
        "context": {"do": "wait"},
    }
    await client.start_workflow(template["slug"], body, id=f"execution/{running}", task_queue=task_queue)
    return root, running, waiting


async def test_terminating_ends_the_whole_tree_and_its_rows(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client, task_queue: str
) -> None:
    root, running, waiting = await _family(api, database, template, temporal_client, task_queue)
    answer = await ok(await api.post(f"/executions/{root}/terminate", json={"reason": "enough"}, headers=ANN))
    assert answer == {"executionId": root, "status": "COMPLETED", "terminated": 3}
    for execution_id in (root, running, waiting):
        row = await row_of(database, execution_id)
        assert (row.status, row.closed_as, row.status_reason) == (
            "COMPLETED",
            "TERMINATED",
            "terminated by ann: enough",
        )
    for execution_id in (root, running):
        found = await temporal_client.get_workflow_handle(f"execution/{execution_id}").describe()
        assert found.status == WorkflowExecutionStatus.TERMINATED
    refused(await api.post(f"/executions/{root}/terminate"), 409, "EXECUTION_ENDED")
    found_events = [(event["action"], event["result"], event["after"]) for event in await audit(api, root)]
    assert found_events == [
        ("TERMINATE", "EXECUTION_ENDED", {"terminated": 0}),
        ("TERMINATE", "DONE", {"terminated": 3}),
    ]


async def test_a_child_that_outlived_its_parent_is_terminated_through_the_parent(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client, task_queue: str
) -> None:
    root, running, _ = await _family(api, database, template, temporal_client, task_queue)
    await temporal_client.get_workflow_handle(f"execution/{root}").terminate("by hand")
    answer = await ok(await api.post(f"/executions/{root}/terminate"))
    # The root's run had ended by itself: its row is the reconciler's, who says how.
    assert answer["terminated"] == 2
    assert (await row_of(database, running)).closed_as == "TERMINATED"


async def _ends(client: Client, execution_id: str) -> None:
    handle = client.get_workflow_handle(f"execution/{execution_id}")
    async with asyncio.timeout(10):
        while (await handle.describe()).status == WorkflowExecutionStatus.RUNNING:
            await asyncio.sleep(0.05)


async def _set_started(database: Database, execution_id: str) -> None:
    async with database.driver() as connection:
        assert await mark_started(connection, UUID(execution_id))


@pytest.mark.parametrize("compensate", [True, False])
async def test_a_cancel_reaches_detached_children_only_on_request(
    api: httpx.AsyncClient,
    database: Database,
    template: Json,
    temporal_client: Client,
    task_queue: str,
    compensate: bool,
) -> None:
    family = await _family(api, database, template, temporal_client, task_queue, detached=True)
    root, running, _ = family
    await _set_started(database, running)
    body = {"compensate": compensate}
    await ok(await api.post(f"/executions/{root}/cancel", json=body), 202)
    await _ends(temporal_client, root)
    child = temporal_client.get_workflow_handle(f"execution/{running}")
    assert (await child.describe()).status == WorkflowExecutionStatus.RUNNING

    # The parent is over by now; its detached child can still be reached through it.
    close = {"executionId": root, "closedAs": "CANCELLED", "endedAt": datetime.now(UTC).isoformat()}
    async with database.driver() as connection:
        assert await close_execution(connection, CloseExecution.model_validate(close))
    await ok(await api.post(f"/executions/{root}/cancel", json={**body, "includeDetached": True}), 202)
    await _ends(temporal_client, running)
    assert (await audit(api, root))[0]["after"]["detached"] == 1
    history = await child.fetch_history()
    asked_of_temporal = any(
        event.HasField("workflow_execution_cancel_requested_event_attributes") for event in history.events
    )
    assert asked_of_temporal is compensate


async def test_a_cancel_leaves_children_that_are_waited_for_to_their_parent(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client, task_queue: str
) -> None:
    root, running, _ = await _family(api, database, template, temporal_client, task_queue)
    await _set_started(database, running)
    await ok(await api.post(f"/executions/{root}/cancel", json={"includeDetached": True}), 202)
    await _ends(temporal_client, root)
    found = await temporal_client.get_workflow_handle(f"execution/{running}").describe()
    assert found.status == WorkflowExecutionStatus.RUNNING
    refused(await api.post(f"/executions/{root}/cancel"), 409, "EXECUTION_ENDED")


async def test_a_replay_is_a_new_execution_with_the_same_version_trigger_and_context(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    first = await start(api, template, "finish", n=[1])
    await publish(api, template, version="9.0.0")
    headers = {**ANN, "Idempotency-Key": "again"}
    answer = await ok(await api.post(f"/executions/{first}/replay", headers=headers), 202)
    again = await ok(await api.post(f"/executions/{first}/replay", headers=headers))
    assert again["executionId"] == answer["executionId"] != first
    assert answer["replayOf"] == first
    old, new = await row_of(database, first), await row_of(database, answer["executionId"])
    assert (new.context, new.trigger, new.version_id, new.name) == (old.context, old.trigger, old.version_id, old.name)
    [turn] = (await ok(await api.get(f"/executions/{new.id}/lineage")))["items"]
    assert (turn["kind"], turn["status"], turn["sourceId"], turn["actor"]) == ("REPLAY", "DONE", first, "ann")
    events = await audit(api, first)
    assert [event["after"]["executionId"] for event in events] == [str(new.id)] * 2


async def test_a_replay_of_a_paused_template_is_refused(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    first = await start(api, template, "finish")
    await ok(await api.post(f"/templates/{template['id']}/pause"))
    refused(await api.post(f"/executions/{first}/replay"), 422, "TEMPLATE_PAUSED")


async def test_the_audit_can_be_searched_and_read_page_by_page(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await start(api, template)
    who = f"auditor-{uuid4().hex}"
    for word in ("pause", "resume", "pause"):
        await ok(await api.post(f"/executions/{execution_id}/{word}", headers={"X-Millrace-Actor": who}))
    read: list[str] = []
    params: dict[str, str] = {"actor": who, "limit": "2"}
    while True:
        page = await ok(await api.get("/audit", params=params))
        read += [event["action"] for event in page["items"]]
        if page["nextCursor"] is None:
            break
        params["cursor"] = page["nextCursor"]
    assert read == ["PAUSE", "RESUME", "PAUSE"]
    page = await ok(await api.get("/audit", params={"actor": who, "action": "RESUME"}))
    [event] = page["items"]
    assert event["executionId"] == execution_id
    before = {"actor": who, "before": event["at"]}
    assert len((await ok(await api.get("/audit", params=before)))["items"]) == 1
    after = {"actor": who, "after": event["at"], "executionId": execution_id}
    assert len((await ok(await api.get("/audit", params=after)))["items"]) == 2
    refused(await api.get("/audit", params={"cursor": "x"}), 422, "CURSOR_INVALID")


async def test_a_request_too_large_for_the_audit_is_kept_as_its_size_and_hash(
    api: httpx.AsyncClient, template: Json
) -> None:
    execution_id = await start(api, template)
    await ok(await api.post(f"/executions/{execution_id}/signals/go", json="x" * 20_000))
    [event] = await audit(api, execution_id)
    assert event["request"]["omitted"] is True
    assert event["request"]["bytes"] > 20_000
