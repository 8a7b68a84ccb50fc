"""A step over HTTP: what cannot be said and why, and steps that ran beside their workflow."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RawValue, RetryPolicy
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from app.db.session import Database
from app.db.tables import WorkflowExecution, new_id
from app.settings import Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, ok, refused
from tests.wire_cutter import relayed

tries = {"count": 0}


@activity.defn(name="test.short")
async def short(n: int) -> dict[str, Any]:
    """An action beside its workflow: it answers with its input, too. It succeeds at the second attempt."""
    tries["count"] += 1
    if tries["count"] % 2:
        raise ApplicationError("not yet", type="BUSY")
    return {"input": {"n": n}, "output": {"doubled": 2 * n}}


@workflow.defn(dynamic=True, sandboxed=False)
class Beside:
    """Runs the step `note` as a local activity, for two items."""

    @workflow.run
    async def run(self, _: Sequence[RawValue]) -> None:
        for item in range(2):
            await workflow.execute_local_activity(
                "test.short",
                item + 1,
                activity_id=f"note#1/item/{item}",
                start_to_close_timeout=timedelta(seconds=5),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_attempts=3),
                local_retry_threshold=timedelta(milliseconds=100),
            )


@pytest.fixture(scope="module", autouse=True)
async def worker(temporal_client: Client, task_queue: str, converter: DataConverter) -> AsyncIterator[None]:
    client = Client(temporal_client.service_client, namespace=temporal_client.namespace, data_converter=converter)
    async with Worker(client, task_queue=task_queue, workflows=[Beside], activities=[short]):
        yield


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api)
    return await ok(await api.get(f"/templates/{template['id']}"))


@pytest.fixture(scope="module")
async def ended(api: httpx.AsyncClient, template: Json) -> str:
    started = await ok(await api.post(f"/templates/{template['id']}/execute?wait=20", json={}))
    return str(started["executionId"])


async def test_what_ran_beside_the_workflow_is_read_from_its_marker(api: httpx.AsyncClient, ended: str) -> None:
    detail = await ok(await api.get(f"/executions/{ended}/steps/note"))
    assert (detail["stepId"], detail["name"], detail["type"]) == ("note", "Note", "SYS_SET")
    [visit] = detail["visits"]
    second, retried, first, _ = visit["calls"]
    assert (second["key"], second["item"], second["kind"], second["local"]) == ("note#1/item/1", 1, "ACTION", True)
    assert (second["name"], second["status"], second["attempts"]) == ("test.short", "COMPLETED", 2)
    assert (second["input"], second["output"]) == ({"n": 2}, {"doubled": 4})
    assert second["scheduledAt"] < second["closedAt"]
    assert (retried["status"], retried["attempts"], retried["error"]["code"]) == ("RETRIED", 1, "BUSY")
    assert (first["item"], first["output"]) == (0, {"doubled": 2})
    # The run answers no queries: that is said, and takes nothing away from what history holds.
    assert (detail["status"], detail["problem"]["code"]) == (None, "QUERY_FAILED")


async def test_one_item_is_asked_for_alone(api: httpx.AsyncClient, ended: str) -> None:
    params = {"visit": "1", "item": "1", "limit": "1"}
    detail = await ok(await api.get(f"/executions/{ended}/steps/note", params=params))
    assert [call["key"] for visit in detail["visits"] for call in visit["calls"]] == ["note#1/item/1"]
    nothing = await ok(await api.get(f"/executions/{ended}/steps/note", params={"visit": "2"}))
    assert (nothing["visits"], nothing["nextCursor"], nothing["truncated"]) == ([], None, False)


async def test_a_step_that_the_version_does_not_have_is_not_found(api: httpx.AsyncClient, ended: str) -> None:
    refused(await api.get(f"/executions/{ended}/steps/nowhere"), 404, "STEP_NOT_FOUND")


@pytest.mark.parametrize("cursor", ["x", "eHx5", "MDAwMDAwMDAtMDAwMC03MDAwLTgwMDAtMDAwMDAwMDAwMDAwfDU"])
async def test_a_cursor_that_was_not_given_out_is_refused(api: httpx.AsyncClient, ended: str, cursor: str) -> None:
    answer = await api.get(f"/executions/{ended}/steps/note", params={"cursor": cursor})
    refused(answer, 422, "CURSOR_INVALID")


@pytest.mark.parametrize("params", [{"visit": "0"}, {"item": "-1"}, {"limit": "101"}, {"visit": "one"}])
async def test_a_visit_that_cannot_be_is_refused(api: httpx.AsyncClient, ended: str, params: dict[str, str]) -> None:
    refused(await api.get(f"/executions/{ended}/steps/note", params=params), 422, "REQUEST_INVALID")


async def test_a_step_of_an_execution_that_has_not_begun_has_no_visits(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    execution_id = new_id()
    async with database.transaction() as session:
        session.add(
            WorkflowExecution(
                id=execution_id,
                name="later",
                version_id=UUID(template["activeVersionId"]),
                template_id=UUID(template["id"]),
                root_id=execution_id,
                context={},
            )
        )
    detail = await ok(await api.get(f"/executions/{execution_id}/steps/note"))
    assert (detail["status"], detail["visitCount"], detail["visits"]) == ("NOT_STARTED", 0, [])


async def test_while_temporal_is_away_that_is_said(
    serve: Serve, settings: Settings, database: Database, temporal_address: str, ended: str, converter: DataConverter
) -> None:
    async with relayed(temporal_address) as relay:
        changed = settings.model_copy(deep=True)
        changed.temporal.address, changed.temporal.connect_timeout = relay.address, 1
        temporal = Temporal(changed.temporal, converter)
        await temporal.assure()
        api = await serve(changed, database, temporal)
        await relay.cut()
        refused(await api.get(f"/executions/{ended}/steps/note"), 503, "TEMPORAL_UNAVAILABLE")
        await relay.mend()
