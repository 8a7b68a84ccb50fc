"""Rows that were refused have their turn again, and no other row has; and what is old is let go."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from temporalio.client import Client

from app.backfill_contracts import BACKFILL_WORKFLOW
from app.backfills.retention import count_old_rows, delete_old_rows
from app.backfills.service import retry_refused
from app.background import purge_forever
from app.db.session import Database
from app.executions.control import Caller
from app.settings import BackfillSettings, Settings
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, create_template, link, ok, publish, refused
from tests.app.test_backfill_runs import begun, ended, executions_of, row, rows_of, until
from tests.workflows.harness import replayer
from worker import build_worker


@pytest.fixture(scope="module", autouse=True)
async def worker(worker_client: Client, settings: Settings, database: Database) -> AsyncIterator[None]:
    """A worker; at the end every backfill's history is replayed."""
    async with build_worker(worker_client, database, settings, ()):
        yield
    found = worker_client.list_workflows(
        f"TaskQueue = '{settings.temporal.task_queue}' AND WorkflowType = '{BACKFILL_WORKFLOW}'"
    )
    async for run in found:
        handle = worker_client.get_workflow_handle(run.id, run_id=run.run_id)
        await replayer(worker_client.data_converter).replay_workflow(await handle.fetch_history())


async def retried(api: httpx.AsyncClient, path: str, **body: str) -> Json:
    return await ok(await api.post(f"{path}/retry", json=body), 202)


def became(rows: list[Json]) -> list[tuple[str, str | None]]:
    return [(one["status"], one["code"]) for one in rows]


async def _refused_by_two(api: httpx.AsyncClient) -> tuple[Json, Json, list[Json]]:
    """A template that runs, one that does not yet, and rows: of the one, the other, and of nobody's."""
    good, asleep = await active_template(api), await create_template(api)
    rows = [
        row(1, entityId=await link(api, good), eventId=uuid4().hex),
        row(2, entityId=await link(api, asleep), eventId=uuid4().hex),
        row(3, entityId=f"nobody-{uuid4().hex}", eventId=uuid4().hex),
        row(4, entityId=await link(api, asleep)),
    ]
    return good, asleep, rows


async def test_only_refused_rows_have_their_turn_again(api: httpx.AsyncClient) -> None:
    good, asleep, rows = await _refused_by_two(api)
    path = await begun(api, rows, entityType="PRODUCT")
    found = await ended(api, path)
    assert (found["rows"]["started"], found["rows"]["refused"]) == (1, 3)
    version = await publish(api, asleep)
    await ok(await api.post(f"/versions/{version['id']}/activate"))
    assert (await retried(api, path))["status"] == "RUNNING"
    found = await ended(api, path)
    assert became(await rows_of(api, path)) == [
        ("STARTED", None),
        ("STARTED", None),
        ("REFUSED", "UNLINKED"),
        ("STARTED", None),
    ]
    assert (len(await executions_of(api, good)), len(await executions_of(api, asleep))) == (1, 2)
    assert found["endedAt"] is not None
    # And again: the one that is left.
    await retried(api, path)
    assert (await ended(api, path))["rows"]["refused"] == 1
    assert (len(await executions_of(api, good)), len(await executions_of(api, asleep))) == (1, 2)


async def test_rows_of_one_code_are_retried_and_the_others_left(api: httpx.AsyncClient) -> None:
    _, _, rows = await _refused_by_two(api)
    path = await begun(api, rows, entityType="PRODUCT")
    await ended(api, path)
    refused(await api.post(f"{path}/retry", json={"code": "CONTEXT_INVALID"}), 409, "NOTHING_TO_RETRY")
    assert (await ok(await api.get(path)))["status"] == "COMPLETED"
    answer = await retried(api, path, code="UNLINKED")
    assert (answer["rows"]["pending"], answer["rows"]["refused"]) == (1, 2)
    await ended(api, path)


async def test_a_row_that_was_started_meanwhile_is_not_started_again(api: httpx.AsyncClient) -> None:
    _, asleep, rows = await _refused_by_two(api)
    path = await begun(api, rows, entityType="PRODUCT")
    await ended(api, path)
    version = await publish(api, asleep)
    await ok(await api.post(f"/versions/{version['id']}/activate"))
    events = [one["eventRecordId"] for one in await rows_of(api, path) if one["code"] == "TEMPLATE_NOT_ACTIVE"]
    await ok(await api.post(f"/trigger-events/{events[0]}/redeliver"), 202)
    live = {"eventId": rows[1]["eventId"], "entityId": rows[1]["entityId"], "context": rows[1]["context"]}
    assert (await api.post("/triggers/product-purchases", json=live)).status_code in (200, 202)
    await retried(api, path)
    await ended(api, path)
    assert len(await executions_of(api, asleep)) == 2


async def test_an_event_that_is_gone_from_the_inbox_is_started_once_all_the_same(
    api: httpx.AsyncClient, database: Database
) -> None:
    _, asleep, rows = await _refused_by_two(api)
    path = await begun(api, rows[1:2], entityType="PRODUCT")
    await ended(api, path)
    version = await publish(api, asleep)
    await ok(await api.post(f"/versions/{version['id']}/activate"))
    [found] = await rows_of(api, path)
    await ok(await api.post(f"/trigger-events/{found['eventRecordId']}/redeliver"), 202)
    async with database.driver() as connection:
        await connection.execute("DELETE FROM trigger_event WHERE id = $1", UUID(found["eventRecordId"]))
    await retried(api, path)
    await ended(api, path)
    assert len(await executions_of(api, asleep)) == 1
    assert (await rows_of(api, path))[0]["executionId"] == (await executions_of(api, asleep))[0]["id"]


async def test_many_retries_at_once_and_while_it_ends_leave_no_row_behind(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    entity = await link(api, template)
    path = await begun(api, [row(n, entityId=entity) for n in range(1, 41)], entityType="PRODUCT")
    await ended(api, path)
    for _ in range(6):
        answers = await asyncio.gather(*(api.post(f"{path}/retry") for _ in range(4)))
        assert 202 in {answer.status_code for answer in answers}, [answer.text for answer in answers]
        # As soon as all have had their turn, perhaps before it is COMPLETED, perhaps before its run has ended.

        async def settled() -> bool:
            return bool((await ok(await api.get(path)))["rows"]["pending"] == 0)

        await until(settled)
    found = await ended(api, path)
    assert (found["rows"]["refused"], found["rows"]["pending"]) == (40, 0)
    version = await publish(api, template)
    await ok(await api.post(f"/versions/{version['id']}/activate"))
    await retried(api, path)
    assert (await ended(api, path))["rows"]["started"] == 40
    refused(await api.post(f"{path}/retry"), 409, "NOTHING_TO_RETRY")


async def test_a_paused_backfill_retries_when_it_is_resumed(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    entity = await link(api, template)
    path = await begun(api, [row(n, entityId=entity) for n in range(1, 31)], entityType="PRODUCT", rate=10)

    async def some() -> bool:
        return bool((await ok(await api.get(path)))["rows"]["refused"])

    await until(some)
    await ok(await api.post(f"{path}/pause"))
    await asyncio.sleep(0.5)
    assert (await retried(api, path))["status"] == "PAUSED"
    assert (await ok(await api.get(path)))["rows"]["refused"] == 0
    await ok(await api.post(f"{path}/resume"))
    assert (await ended(api, path))["rows"]["refused"] == 30


async def test_a_retry_is_audited_and_done_once_under_its_key(api: httpx.AsyncClient) -> None:
    _, _, rows = await _refused_by_two(api)
    path = await begun(api, rows, entityType="PRODUCT")
    await ended(api, path)
    headers = {"X-Millrace-Actor": "ann", "Idempotency-Key": uuid4().hex}
    await ok(await api.post(f"{path}/retry", headers=headers), 202)
    await ended(api, path)
    assert (await ok(await api.post(f"{path}/retry", headers=headers), 202))["status"] == "COMPLETED"
    refused(await api.post(f"{path}/retry", json={"code": "X"}, headers=headers), 409, "IDEMPOTENCY_CONFLICT")
    wanted = {"entityId": path.rpartition("/")[2], "action": "RETRY_BACKFILL"}
    [event] = (await ok(await api.get("/audit", params=wanted)))["items"]
    assert (event["actor"], event["after"]) == ("ann", {"rows": 3, "status": "RUNNING"})


async def test_what_has_not_begun_or_was_cancelled_is_not_retried(api: httpx.AsyncClient) -> None:
    made = await ok(await api.post("/backfills", json={"name": "x", "entityType": "PRODUCT"}), 201)
    path = f"/backfills/{made['id']}"
    refused(await api.post(f"{path}/retry"), 409, "BACKFILL_NOT_STARTED")
    await ok(await api.post(f"{path}/cancel"))
    refused(await api.post(f"{path}/retry"), 409, "BACKFILL_OVER")
    refused(await api.post(f"/backfills/{uuid4()}/retry"), 404, "BACKFILL_NOT_FOUND")


async def test_rows_that_a_retry_has_just_taken_up_are_not_deleted(
    api: httpx.AsyncClient, database: Database, temporal: Temporal
) -> None:
    _, _, rows = await _refused_by_two(api)
    path = await begun(api, rows, entityType="PRODUCT")
    await ended(api, path)
    async with database.transaction() as session:
        await retry_refused(session, temporal, UUID(path.rpartition("/")[2]), None, Caller(None))
        purging = asyncio.create_task(delete_old_rows(database, datetime.now(UTC) + timedelta(minutes=1)))
        await asyncio.sleep(0.5)
    await purging
    found = await ended(api, path)
    assert (found["rowsDeletedAt"], len(await rows_of(api, path))) == (None, 4)


async def test_old_backfills_lose_their_rows_and_keep_their_counts(
    api: httpx.AsyncClient, database: Database, temporal: Temporal
) -> None:
    _, _, rows = await _refused_by_two(api)
    old = await begun(api, rows, entityType="PRODUCT")
    before = await ended(api, old)
    moment = datetime.now(UTC) + timedelta(milliseconds=1)
    await asyncio.sleep(0.01)
    young = await begun(api, rows, entityType="PRODUCT")
    await ended(api, young)
    waiting = await ok(await api.post("/backfills", json={"name": "x", "entityType": "PRODUCT"}), 201)
    await ok(await api.post(f"/backfills/{waiting['id']}/rows", json={"rows": rows}))
    count = await count_old_rows(database, moment)
    # Also while they are being deleted: their counts are written down, and they are there still.
    async with database.driver() as connection:
        await connection.execute("UPDATE backfill SET rows_deleted_at = now() WHERE id = $1", UUID(before["id"]))
    refused(await api.post(f"{old}/retry"), 409, "NOTHING_TO_RETRY")
    async with database.driver() as connection:
        await connection.execute("UPDATE backfill SET rows_deleted_at = NULL WHERE id = $1", UUID(before["id"]))
    assert await delete_old_rows(database, moment) == count >= 4
    assert await delete_old_rows(database, moment) == 0
    found = await ok(await api.get(old))
    assert found["rows"] == before["rows"]
    assert found["rowsDeletedAt"] is not None
    assert await rows_of(api, old) == []
    problem = refused(await api.post(f"{old}/retry"), 409, "NOTHING_TO_RETRY")
    assert "deleted" in problem["detail"]
    assert len(await rows_of(api, young)) == len(await rows_of(api, f"/backfills/{waiting['id']}")) == 4

    # APIs do it by themselves.
    at_once = Settings(backfills=BackfillSettings(keep_days=1e-9))
    purging = asyncio.create_task(purge_forever(database, temporal, at_once, interval=timedelta(milliseconds=20)))

    async def gone() -> bool:
        return not await rows_of(api, young)

    await until(gone)
    purging.cancel()
    assert len(await rows_of(api, f"/backfills/{waiting['id']}")) == 4
