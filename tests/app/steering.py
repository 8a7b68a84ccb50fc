"""What tests of steering need: executions that run, and what was asked of them, written down and kept."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import select
from sqlmodel import col
from temporalio.client import Client

from app.contracts import CloseExecution, DeadLetterRecord
from app.db.session import Database
from app.db.tables import WorkflowExecution
from app.executions.control_schemas import ResumePoint
from app.executions.lifecycle import close_execution
from engine.errors import EngineError
from tests.app.scenes import Json, ok

ANN = {"X-Millrace-Actor": "ann"}


async def start(api: httpx.AsyncClient, template: Json, do: str = "wait", **more: Any) -> str:
    answer = await api.post(f"/templates/{template['id']}/execute", json={"context": {"do": do, **more}})
    return str((await ok(answer, 202))["executionId"])


async def asked(client: Client, execution_id: str) -> list[Json]:
    """What the run has been asked."""
    dump = await client.get_workflow_handle(f"execution/{execution_id}").query("state")
    found: list[Json] = dump["state"]["asked"]
    return found


async def audit(api: httpx.AsyncClient, execution_id: str) -> list[Json]:
    found: list[Json] = (await ok(await api.get(f"/executions/{execution_id}/audit")))["items"]
    return found


async def row_of(database: Database, execution_id: str) -> WorkflowExecution:
    async with database.transaction() as session:
        statement = select(WorkflowExecution).where(col(WorkflowExecution.id) == UUID(execution_id))
        return (await session.execute(statement)).scalar_one()


async def close(
    database: Database, execution_id: str, closed_as: str, state: Json | None = None, run_id: str | None = None
) -> bool:
    """Closes the row as the run itself would, with a dead letter when there is a state."""
    letter = None
    if state is not None:
        letter = DeadLetterRecord(step_id="note", code="NO_STOCK", message="nothing left", attempts=3, state=state)
    request = CloseExecution.model_validate(
        {
            "executionId": execution_id,
            "closedAs": closed_as,
            "reason": "NO_STOCK: nothing left",
            "endedAt": datetime.now(UTC).isoformat(),
            "deadLetter": letter,
        }
    )
    async with database.driver() as connection:
        return await close_execution(connection, request, run_id)


async def failed(api: httpx.AsyncClient, database: Database, template: Json, client: Client, state: Json) -> str:
    """An execution that has failed and left a dead letter with the state."""
    execution_id = await start(api, template, "fail")
    await ended(client, execution_id)
    assert await close(database, execution_id, "FAILED", state)
    return execution_id


async def ended(client: Client, execution_id: str) -> str:
    """Waits for the end of the latest run; its id."""
    handle = client.get_workflow_handle(f"execution/{execution_id}")
    async for _ in handle.fetch_history_events(wait_new_event=True):
        pass
    return (await handle.describe()).run_id


class FakeRepair:
    """Repairs by writing down what was to be repaired; the state says what is wrong with it."""

    def retried(self, definition: Mapping[str, Any], state: Json) -> Json:
        return {**state, "retried": True, "steps": len(definition["steps"])}

    def resumed(self, definition: Mapping[str, Any], state: Json, point: ResumePoint) -> Json:
        if point.step_id != "note":
            raise EngineError("STEP_NOT_FOUND", "no such step")
        if point.visit == 2:
            raise EngineError("STEP_NOT_RUN", "it had one visit")
        return {**state, "from": point.model_dump(mode="json", exclude_unset=True)}
