"""Rows are stamped by several clocks: that of PostgreSQL, of workers, of Temporal. None ends before it has begun."""

from datetime import UTC, datetime, timedelta

import httpx

from app.contracts import CloseExecution
from app.db.session import Database
from app.executions.lifecycle import close_execution
from tests.app.scenes import Json, active_template, ok
from tests.app.steering import row_of, start


async def test_an_execution_that_a_slow_clock_closes_ends_no_earlier_than_it_began(
    api: httpx.AsyncClient, database: Database
) -> None:
    template: Json = await active_template(api)
    execution_id = await start(api, template)
    early = datetime.now(UTC) - timedelta(hours=1)
    request = CloseExecution.model_validate(
        {"executionId": execution_id, "closedAs": "COMPLETED", "endedAt": early.isoformat()}
    )
    async with database.driver() as connection:
        assert await close_execution(connection, request)
    row = await row_of(database, execution_id)
    assert row.started_at is not None
    assert row.ended_at == row.started_at
    shown = await ok(await api.get(f"/executions/{execution_id}"))
    assert shown["endedAt"] >= shown["startedAt"]
