"""Retry and resume-from: one execution, another run, whatever dies in between."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client
from temporalio.converter import DataConverter

from app.contracts import ChildToRegister, ExecutionStart, RecordSteps, RegisterChildren, TaskRecord
from app.db.session import Database
from app.errors import Unavailable
from app.executions.lifecycle import register_children
from app.executions.reconciler import reconcile_once
from app.executions.records import record_steps
from app.executions.reopening import begin
from app.main import create_app
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import served
from tests.app.scenes import Json, ok, refused
from tests.app.steering import ANN, FakeRepair, audit, close, ended, failed, row_of, start

pytestmark = pytest.mark.usefixtures("stand_in")

NOW = timedelta(0)


@pytest.fixture(scope="module")
def repair() -> FakeRepair:
    return FakeRepair()


async def test_a_failed_execution_is_retried_from_its_dead_letter_as_the_same_execution(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    # What jsonb would not give back: the order of members, and a character that it cannot hold.
    state = {"wait": True, "b": 1, "a": "nul \0", "run": {"depth": 2}}
    execution_id = await failed(api, database, template, temporal_client, state)
    first_run = await ended(temporal_client, execution_id)
    answer = await ok(
        await api.post(f"/executions/{execution_id}/retry", json={"reason": "stock came"}, headers=ANN), 202
    )
    assert answer["previousRunId"] == first_run != answer["runId"]
    assert (answer["executionId"], answer["kind"], answer["status"]) == (execution_id, "RETRY", "STARTED")

    row = await row_of(database, execution_id)
    assert (row.status, row.closed_as, row.ended_at, row.status_reason) == ("STARTED", None, None, None)
    read = await ok(await api.get(f"/executions/{execution_id}"))
    assert (read["runtimeStatus"], read["waitingFor"][0]["stepId"]) == ("IN_PROGRESS", "confirm")
    [turn] = (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]
    assert (turn["kind"], turn["status"], turn["actor"], turn["note"]) == ("RETRY", "DONE", "ann", "stock came")
    assert (turn["previousRunId"], turn["runId"], turn["closedAs"]) == (first_run, answer["runId"], "FAILED")
    [event] = await audit(api, execution_id)
    assert (event["action"], event["result"], event["before"]["closedAs"]) == ("RETRY", "DONE", "FAILED")

    refused(await api.post(f"/executions/{execution_id}/retry"), 409, "EXECUTION_OPEN")
    await ok(await api.post(f"/executions/{execution_id}/steps/confirm/complete", json={}))
    await ended(temporal_client, execution_id)


async def test_the_new_run_is_given_the_repaired_state_to_the_letter(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    state = {"b": 1, "a": "nul \0", "big": 12345678901234567890, "run": {"depth": 2}}
    execution_id = await failed(api, database, template, temporal_client, state)
    await ok(await api.post(f"/executions/{execution_id}/retry"), 202)
    await ended(temporal_client, execution_id)
    output = await temporal_client.get_workflow_handle(f"execution/{execution_id}").result()
    assert output["state"] == {**state, "retried": True, "steps": 3}
    assert list(output["state"])[:2] == ["b", "a"]


async def test_the_new_run_knows_how_far_the_rows_of_the_last_one_are_ahead_of_the_clock(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    """Of very many that were written at once the last are: a task that is opened anew before that would stay closed."""
    execution_id = await failed(api, database, template, temporal_client, {"wait": True})
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    task = TaskRecord(key="ask#1", step_id="ask", visit=1, status="CANCELLED", at=ahead.isoformat())
    async with database.transaction() as session:
        await record_steps(session, RecordSteps(execution_id=UUID(execution_id), tasks=[task]))
    await ok(await api.post(f"/executions/{execution_id}/retry"), 202)
    history = await temporal_client.get_workflow_handle(f"execution/{execution_id}").fetch_history()
    payloads = history.events[0].workflow_execution_started_event_attributes.input.payloads
    [given_to_it] = await temporal_client.data_converter.decode(payloads[:1], [ExecutionStart])
    assert given_to_it.recorded_until == int(ahead.timestamp() * 1000)


async def test_a_second_failure_replaces_the_dead_letter_and_can_be_retried_again(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"n": 1})
    await ok(await api.post(f"/dead-letters/{execution_id}/retry"), 202)
    letter = await ok(await api.get(f"/dead-letters/{execution_id}"))
    assert letter["retriedAt"] is not None
    assert "state" not in letter
    await ended(temporal_client, execution_id)
    assert await close(database, execution_id, "FAILED", {"n": 2})
    letter = await ok(await api.get(f"/dead-letters/{execution_id}", params={"state": "true"}))
    assert (letter["retriedAt"], letter["state"]) == (None, {"n": 2})
    await ok(await api.post(f"/executions/{execution_id}/retry"), 202)
    await ended(temporal_client, execution_id)
    turns = (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]
    assert [turn["previousRunId"] for turn in turns][1] == turns[0]["runId"]


async def test_going_on_from_a_step_takes_the_state_from_the_closed_run(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    execution_id = await start(api, template, "finish")
    await ended(temporal_client, execution_id)
    assert await close(database, execution_id, "COMPLETED")
    path = f"/executions/{execution_id}/resume-from"
    refused(await api.post(path, json={"stepId": "nowhere"}), 404, "STEP_NOT_FOUND")
    refused(await api.post(path, json={"stepId": "note", "visit": 2}), 409, "STEP_NOT_RUN")
    assert (await row_of(database, execution_id)).status == "COMPLETED"
    body = {"stepId": "note", "visit": 1, "context": {"n": 1}, "output": None}
    answer = await ok(await api.post(path, json=body, headers=ANN), 202)
    assert answer["kind"] == "RESUME"
    await ended(temporal_client, execution_id)
    output = await temporal_client.get_workflow_handle(f"execution/{execution_id}").result()
    assert output["state"] == {
        "asked": [],
        "from": {"step_id": "note", "visit": 1, "context": {"n": 1}, "output": None},
    }
    events = await audit(api, execution_id)
    assert [event["result"] for event in events] == ["DONE", "STEP_NOT_RUN", "STEP_NOT_FOUND"]
    assert events[0]["request"] == body


async def test_a_retry_repeated_with_its_key_gets_the_first_answer(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": True})
    headers = {"Idempotency-Key": "once"}
    first = await ok(await api.post(f"/executions/{execution_id}/retry", headers=headers), 202)
    assert await ok(await api.post(f"/executions/{execution_id}/retry", headers=headers), 202) == first


async def _child(database: Database, template: Json, parent: str, *, detached: bool = False) -> str:
    async with database.transaction() as session:
        answer = await register_children(
            session,
            RegisterChildren(
                parent_id=UUID(parent),
                root_id=UUID(parent),
                step_id="s",
                attempt=1,
                template_ref=template["slug"],
                detached=detached,
                children=[ChildToRegister(key="s#1", context={})],
            ),
        )
    return str(answer.children[0].execution_id)


async def test_a_child_that_its_parent_waited_for_is_retried_through_its_root(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    root = await start(api, template)
    child = await _child(database, template, root)
    assert await close(database, child, "FAILED")
    refused(await api.post(f"/executions/{child}/retry"), 409, "RETRY_FROM_PARENT")
    assert await close(database, root, "FAILED")
    problem = refused(await api.post(f"/executions/{child}/retry"), 409, "RETRY_FROM_ROOT")
    assert root in problem["detail"]


async def test_a_detached_child_is_taken_up_again_alone_also_when_it_has_not_failed(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    root = await start(api, template)
    child = await _child(database, template, root, detached=True)
    assert await close(database, child, "CANCELLED")
    # It is not sent to its parent; that nothing is left of a run it never had is another matter.
    refused(await api.post(f"/executions/{child}/retry"), 409, "STATE_GONE")


async def test_a_child_that_nobody_waited_for_is_retried_alone_and_will_leave_a_dead_letter_again(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    root = await start(api, template)
    child = await _child(database, template, root)
    assert await close(database, child, "FAILED", {"wait": True})
    await ok(await api.post(f"/executions/{child}/retry"), 202)
    history = await temporal_client.get_workflow_handle(f"execution/{child}").fetch_history()
    payloads = history.events[0].workflow_execution_started_event_attributes.input.payloads
    [given] = await temporal_client.data_converter.decode(payloads[:1])
    assert (given["parentId"], given["rootId"], given["detached"]) == (root, root, True)


async def _forgotten(api: httpx.AsyncClient, database: Database, template: Json, state: Json | None) -> str:
    """An execution that ended so long ago that Temporal does not remember its run: here, it never had one."""
    root = await start(api, template)
    child = await _child(database, template, root)
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(
            f"UPDATE workflow_execution SET parent_id = NULL, root_id = id WHERE id = '{child}'"
        )
    assert await close(database, child, "FAILED", state)
    return child


async def test_what_neither_temporal_nor_a_dead_letter_remembers_cannot_be_retried(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    forgotten = await _forgotten(api, database, template, None)
    refused(await api.post(f"/executions/{forgotten}/retry"), 409, "STATE_GONE")
    kept = await _forgotten(api, database, template, {"n": 1})
    answer = await ok(await api.post(f"/executions/{kept}/retry"), 202)
    assert answer["previousRunId"] is None
    assert answer["runId"] is not None


class DyingTemporal(Temporal):
    """A way to Temporal that is lost at the given call."""

    dies_at = 0
    calls = 0

    async def client(self) -> Client:
        if self.dies_at:
            self.calls += 1
            if self.calls >= self.dies_at:
                raise Unavailable("TEMPORAL_UNAVAILABLE", "gone")
        return await super().client()


async def _decided_and_then_died(
    settings: Settings,
    database: Database,
    converter: DataConverter,
    execution_id: str,
    headers: dict[str, str] | None = None,
) -> None:
    """A process that decides on a retry and then can no longer reach Temporal."""
    temporal = DyingTemporal(settings.temporal, converter)
    async with served(create_app(settings, database, temporal, FakeRepair())) as other:
        temporal.dies_at = 2
        answer = await ok(await other.post(f"/executions/{execution_id}/retry", headers=headers), 202)
        assert answer["runId"] is None


async def test_a_crash_between_the_decision_and_the_run_is_healed_once(
    settings: Settings,
    database: Database,
    temporal: Temporal,
    api: httpx.AsyncClient,
    template: Json,
    temporal_client: Client,
    converter: DataConverter,
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": True})
    first_run = await ended(temporal_client, execution_id)
    await _decided_and_then_died(settings, database, converter, execution_id)
    assert (await row_of(database, execution_id)).status == "STARTED"
    handle = temporal_client.get_workflow_handle(f"execution/{execution_id}")
    assert (await handle.describe()).run_id == first_run

    assert (await reconcile_once(database, temporal, NOW)).reopened == 1
    second_run = (await handle.describe()).run_id
    assert second_run != first_run
    assert (await reconcile_once(database, temporal, NOW)).reopened == 0
    assert (await handle.describe()).run_id == second_run
    assert (await row_of(database, execution_id)).status == "STARTED"


async def test_a_start_whose_answer_was_lost_is_not_made_a_second_time(
    database: Database, temporal: Temporal, api: httpx.AsyncClient, template: Json, temporal_client: Client
) -> None:
    # The second run ends at once: were it not found, nothing would keep a third from starting.
    execution_id = await failed(api, database, template, temporal_client, {"n": 1})
    answer = await ok(await api.post(f"/executions/{execution_id}/retry"), 202)
    await ended(temporal_client, execution_id)
    [turn] = (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(
            f"UPDATE execution_lineage SET status = 'PENDING', state = '{{}}' WHERE id = '{turn['id']}'"
        )
    assert await begin(database, temporal, UUID(turn["id"])) == answer["runId"]
    assert await begin(database, temporal, UUID(turn["id"])) is None
    assert await ended(temporal_client, execution_id) == answer["runId"]


async def test_a_run_that_was_followed_by_another_closes_nothing(
    database: Database, temporal: Temporal, api: httpx.AsyncClient, template: Json, temporal_client: Client
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": True})
    answer = await ok(await api.post(f"/executions/{execution_id}/retry"), 202)
    assert not await close(database, execution_id, "FAILED", {"late": True}, answer["previousRunId"])
    assert (await row_of(database, execution_id)).status == "STARTED"
    for _ in range(3):
        # However far visibility lags: what it shows of the first run is not taken for the end.
        await reconcile_once(database, temporal, NOW)
    assert (await row_of(database, execution_id)).status == "STARTED"
    assert await close(database, execution_id, "CANCELLED", None, answer["runId"])


async def test_what_temporal_will_never_take_is_closed_again_as_it_was(
    settings: Settings,
    database: Database,
    converter: DataConverter,
    api: httpx.AsyncClient,
    template: Json,
    temporal_client: Client,
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": True})
    before = await row_of(database, execution_id)
    odd = settings.model_copy(deep=True)
    odd.temporal.task_queue = "longer than any queue's name " * 100
    headers = {"Idempotency-Key": "k"}
    async with served(create_app(odd, database, Temporal(odd.temporal, converter), FakeRepair())) as other:
        for _ in range(2):
            refused(await other.post(f"/executions/{execution_id}/retry", headers=headers), 422, "START_REFUSED")
    after = await row_of(database, execution_id)
    assert (after.status, after.closed_as, after.ended_at) == ("COMPLETED", "FAILED", before.ended_at)
    assert after.status_reason == before.status_reason
    assert (await ok(await api.get(f"/dead-letters/{execution_id}")))["retriedAt"] is None
    turns = (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]
    assert [turn["status"] for turn in turns] == ["REFUSED", "REFUSED"]
    # Where the queue has a name that Temporal takes, the same key is free for another try.
    assert (await ok(await api.post(f"/executions/{execution_id}/retry", headers=headers), 202))["runId"]


async def test_a_retry_that_temporal_refuses_after_it_was_accepted_is_audited_so_and_leaves_its_key_free(
    settings: Settings,
    database: Database,
    converter: DataConverter,
    api: httpx.AsyncClient,
    template: Json,
    temporal_client: Client,
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": True})
    headers = {"Idempotency-Key": "late"}
    await _decided_and_then_died(settings, database, converter, execution_id, headers)
    odd = settings.model_copy(deep=True)
    odd.temporal.task_queue = "longer than any queue's name " * 100
    assert (await reconcile_once(database, Temporal(odd.temporal, converter), NOW)).reopened == 0
    [event] = await audit(api, execution_id)
    assert (event["action"], event["result"]) == ("RETRY", "START_REFUSED")
    assert (await row_of(database, execution_id)).closed_as == "FAILED"

    answer = await ok(await api.post(f"/executions/{execution_id}/retry", headers=headers), 202)
    assert await ok(await api.post(f"/executions/{execution_id}/retry", headers=headers), 202) == answer
    results = [one["result"] for one in await audit(api, execution_id)]
    assert results == ["REPEATED", "DONE", "START_REFUSED"]


async def test_two_retries_at_the_same_moment_make_one_run(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": True})
    answers = await asyncio.gather(*(api.post(f"/executions/{execution_id}/retry") for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    turns = (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]
    assert len(turns) == 1
