"""What tests of steering need: executions that run, and what was asked of them, written down and kept."""

from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import select
from sqlmodel import col
from temporalio.client import Client

from app.db.session import Database
from app.db.tables import WorkflowExecution
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
