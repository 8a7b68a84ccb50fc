"""How many executions of all templates together may be started, and be open."""

import asyncio

import httpx
import pytest
from sqlalchemy import text

from app.db.session import Database
from app.settings import LimitSettings, Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import active_template, ok, refused


@pytest.fixture(scope="module")
async def api(serve: Serve, settings: Settings, database: Database, temporal: Temporal) -> httpx.AsyncClient:
    limited = settings.model_copy(update={"limits": LimitSettings(open_executions=6, starts_per_minute=8)})
    return await serve(limited, database, temporal)


async def test_all_templates_share_what_may_be_open_and_be_started(api: httpx.AsyncClient, database: Database) -> None:
    templates = [await active_template(api) for _ in range(3)]
    templates.append(await active_template(api, limits={"openExecutions": 1}))
    paths = [f"/templates/{template['id']}/execute" for template in templates]
    refused_ones = [await api.post(paths[3], json={}) for _ in range(2)]
    assert [each.status_code for each in refused_ones] == [202, 429]
    answers = await asyncio.gather(*[api.post(path, json={}) for path in paths[:3] for _ in range(10)])
    assert sorted(each.status_code for each in answers) == [202] * 5 + [429] * 25
    refused(await api.post(paths[0], json={}), 429, "CONCURRENCY_LIMITED")
    async with database.transaction() as session:
        await session.execute(
            text("UPDATE workflow_execution SET status = 'COMPLETED', closed_as = 'COMPLETED', ended_at = now()")
        )
    answers = await asyncio.gather(*[api.post(paths[0], json={}) for _ in range(10)])
    assert sorted(each.status_code for each in answers) == [202] * 2 + [429] * 8
    answer = await api.post(paths[1], json={})
    assert "All templates together" in refused(answer, 429, "RATE_LIMITED")["detail"]
    assert int(answer.headers["Retry-After"]) >= 1
    # A template that queues does so here, too.
    queueing = await active_template(api, limits={"openExecutions": 50, "whenFull": "QUEUE"})
    assert (await ok(await api.post(f"/templates/{queueing['id']}/execute", json={}), 202))["status"] == "QUEUED"
