"""Rows of runs that Temporal has lost: described as they are, closed after a while, and never by mistake."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import RPCError

from app.db.session import Database
from app.db.tables import WorkflowExecution, new_id
from app.errors import AppError
from app.executions.reconciler import reconcile_once
from app.settings import Settings
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, ok, refused

NOW = timedelta(0)


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api)
    return await ok(await api.get(f"/templates/{template['id']}"))


async def _started(database: Database, template: Json, started_at: datetime) -> UUID:
    execution_id = new_id()
    async with database.transaction() as session:
        session.add(
            WorkflowExecution(
                id=execution_id,
                name="Started",
                version_id=UUID(template["activeVersionId"]),
                template_id=UUID(template["id"]),
                root_id=execution_id,
                context={},
                status="STARTED",
                started_at=started_at,
            )
        )
    return execution_id


async def _row(database: Database, execution_id: UUID) -> WorkflowExecution:
    async with database.transaction() as session:
        return await session.get_one(WorkflowExecution, execution_id)


async def test_the_row_of_a_run_that_temporal_has_lost_is_closed_after_a_while(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, template: Json, temporal_client: Client
) -> None:
    began = datetime.now(UTC) - timedelta(minutes=11)
    lost = await _started(database, template, began)
    young = await _started(database, template, datetime.now(UTC))
    alive = await _started(database, template, began)
    await temporal_client.start_workflow(template["slug"], id=f"execution/{alive}", task_queue="nobody")
    read = await ok(await api.get(f"/executions/{lost}"))
    assert (read["status"], read["runtimeStatus"], read["waitingFor"]) == ("STARTED", None, None)
    assert read["problem"]["code"] == "RUN_NOT_FOUND"
    for path in ("/steps", "/steps/note"):
        refused(await api.get(f"/executions/{lost}{path}"), 404, "RUN_NOT_FOUND")

    await reconcile_once(database, temporal, NOW)
    row = await _row(database, lost)
    assert (row.status, row.closed_as) == ("COMPLETED", "TERMINATED")
    assert (row.status_reason or "").startswith("RUN_NOT_FOUND")
    assert row.ended_at is not None
    assert [(await _row(database, one)).status for one in (young, alive)] == ["STARTED", "STARTED"]
    read = await ok(await api.get(f"/executions/{lost}"))
    assert (read["status"], read["runtimeStatus"], read["waitingFor"]) == ("COMPLETED", "TERMINATED", [])
    assert (read["error"]["code"], read["problem"]["code"]) == ("TERMINATED", "RUN_NOT_FOUND")


async def test_no_run_is_taken_for_lost_where_the_namespace_is_not_there(
    database: Database, settings: Settings, template: Json, converter: DataConverter
) -> None:
    began = datetime.now(UTC) - timedelta(days=1)
    execution_id = await _started(database, template, began)
    elsewhere = Temporal(settings.temporal.model_copy(update={"namespace": "nowhere"}), converter)
    with pytest.raises((AppError, RPCError)):
        await reconcile_once(database, elsewhere, NOW)
    assert (await _row(database, execution_id)).status == "STARTED"
