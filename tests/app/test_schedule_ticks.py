"""What schedules do when their time has come: on a real worker."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

import httpx
import pytest
from temporalio.client import Client
from temporalio.worker import Replayer

from app.contracts import TICK_WORKFLOW
from app.db.session import Database
from app.errors import Unavailable
from app.schedules.carrying import push
from app.schedules.queries import find_schedule
from app.settings import Settings
from app.temporal import Temporal
from tests.app.clockwork import EVERY_SECOND, NEVER, create_schedule, events_of, until, until_events
from tests.app.scenes import Json, active_template, ok
from worker import build_worker
from workflows.tick import TickRun

WAITING: Json = {
    "schemaVersion": 1,
    "steps": [
        {"id": "start", "type": "START", "name": "Start"},
        {"id": "ask", "type": "HUMAN_CONFIRM", "name": "Ask"},
        {"id": "end", "type": "END", "name": "End"},
    ],
    "stepTransitions": [
        {"id": "t1", "fromStepId": "start", "toStepId": "ask"},
        {"id": "t2", "fromStepId": "ask", "toStepId": "end"},
    ],
}  # fmt: skip


async def _started(api: httpx.AsyncClient, schedule: Json, count: int = 1) -> str:
    """The execution that the latest of so many events has started."""

    async def there() -> str | None:
        runs = (await ok(await api.get(f"/schedules/{schedule['id']}/runs")))["items"]
        return runs[0]["executionIds"][0] if len(runs) == count and runs[0]["executionIds"] else None

    return str(await until(there))


async def _execution(api: httpx.AsyncClient, execution_id: str) -> Json:
    return await ok(await api.get(f"/executions/{execution_id}"))


@pytest.mark.usefixtures("working")
async def test_a_tick_puts_one_event_into_the_inbox(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    context = {"when": {"type": "expr", "expr": "__trigger__.triggerTime"}, "fixed": 7}
    schedule = await create_schedule(
        api, NEVER, {"templateId": template["slug"], "context": context, "name": "nightly"}
    )
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    [event] = await until_events(database, schedule, 1)
    assert (event["source"], event["template_id"]) == ("schedule", UUID(template["id"]))
    payload = event["payload"]
    at = payload["triggerTime"]
    assert payload == {
        "scheduleId": schedule["id"],
        "scheduleName": schedule["name"],
        "cronExpression": "0 0 1 1 *",
        "triggerTime": at,
        "timezone": "UTC",
        "context": {"when": at, "fixed": 7},
        "name": "nightly",
    }
    assert event["dedupe_key"] == f"{schedule['id']}:{at}"
    execution = await _execution(api, await _started(api, schedule))
    assert execution["name"] == "nightly"
    [run] = (await ok(await api.get(f"/schedules/{schedule['id']}/runs")))["items"]
    assert run["eventRecordId"] == str(event["id"])


async def test_ticks_that_came_while_the_worker_was_away_are_stored_once_for_each_nominal_time(
    api: httpx.AsyncClient, database: Database, worker_client: Client, settings: Settings
) -> None:
    schedule = await create_schedule(api, EVERY_SECOND, overlap="ALLOW_ALL", maxExecutions=3)
    await asyncio.sleep(5)
    assert await events_of(database, schedule) == []
    async with build_worker(worker_client, database, settings, ()):
        found = await until_events(database, schedule, 3)
        await asyncio.sleep(2)
    times = [datetime.fromisoformat(one["payload"]["triggerTime"]) for one in found]
    assert [later - earlier for earlier, later in pairwise(times)] == [timedelta(seconds=1)] * 2
    assert [one["times"] for one in await events_of(database, schedule)] == [1, 1, 1]


@pytest.mark.usefixtures("working")
async def test_a_limit_counts_what_came_by_the_clock_and_can_be_raised(
    api: httpx.AsyncClient, database: Database
) -> None:
    schedule = await create_schedule(api, EVERY_SECOND, overlap="ALLOW_ALL", maxExecutions=2)
    await until_events(database, schedule, 2)
    await asyncio.sleep(2.5)
    assert len(await events_of(database, schedule)) == 2
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    await until_events(database, schedule, 3)
    raised = await ok(await api.patch(f"/schedules/{schedule['id']}", json={"maxExecutions": 3}))
    assert raised["remaining"] == 1
    await until_events(database, schedule, 4)
    await asyncio.sleep(2.5)
    assert len(await events_of(database, schedule)) == 4


@pytest.mark.usefixtures("working")
async def test_a_limit_holds_though_the_schedule_is_changed_at_the_very_moment_it_comes(
    api: httpx.AsyncClient, database: Database, temporal: Temporal
) -> None:
    schedules = [await create_schedule(api, EVERY_SECOND, overlap="ALLOW_ALL", maxExecutions=6) for _ in range(2)]
    end = asyncio.get_running_loop().time() + 7

    async def hand_over(schedule: Json) -> None:
        while asyncio.get_running_loop().time() < end:
            async with database.transaction() as session:
                row = await find_schedule(session, schedule["id"])
            assert row is not None
            with suppress(Unavailable):
                await push(temporal, row)

    async def limit(schedule: Json) -> None:
        most = 6
        while most == 6 or asyncio.get_running_loop().time() < end:
            most = 13 - most
            answer = await api.patch(f"/schedules/{schedule['id']}", json={"maxExecutions": most})
            assert answer.status_code in (200, 503), answer.text

    await asyncio.gather(*(hand_over(schedules[0]) for _ in range(6)), limit(schedules[1]))
    for schedule, most in zip(schedules, (6, 7), strict=True):
        await until_events(database, schedule, most)
    await asyncio.sleep(1.5)
    assert [len(await events_of(database, schedule)) for schedule in schedules] == [6, 7]


@pytest.mark.usefixtures("working")
async def test_a_paused_schedule_does_not_come_until_it_is_resumed(api: httpx.AsyncClient, database: Database) -> None:
    schedule = await create_schedule(api, EVERY_SECOND, overlap="ALLOW_ALL")
    await until_events(database, schedule, 1)
    paused = await ok(await api.post(f"/schedules/{schedule['id']}/pause", json={"note": "stocktaking"}))
    assert (paused["paused"], paused["note"]) == (True, "stocktaking")
    await asyncio.sleep(1.5)
    before = len(await events_of(database, schedule))
    await asyncio.sleep(2.5)
    assert len(await events_of(database, schedule)) == before
    assert (await ok(await api.post(f"/schedules/{schedule['id']}/resume")))["paused"] is False
    await until_events(database, schedule, before + 1)
    await api.delete(f"/schedules/{schedule['id']}")


@pytest.mark.usefixtures("working")
async def test_with_skip_nothing_comes_while_what_was_started_runs(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api, WAITING)
    schedule = await create_schedule(
        api, EVERY_SECOND, {"templateId": template["id"]} | {"context": {}}, overlap="SKIP"
    )
    execution = await _started(api, schedule)
    await asyncio.sleep(3)
    assert len(await events_of(database, schedule)) == 1
    completed = await api.post(f"/executions/{execution}/steps/ask/complete", json={})
    assert completed.status_code == 200, completed.text
    await until_events(database, schedule, 2)
    await api.delete(f"/schedules/{schedule['id']}")


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize(("overlap", "ended"), [("CANCEL_OTHER", "CANCELLED"), ("TERMINATE_OTHER", "TERMINATED")])
async def test_the_next_time_ends_what_the_last_one_started(
    api: httpx.AsyncClient, database: Database, overlap: str, ended: str
) -> None:
    template = await active_template(api, WAITING)
    target = {"templateId": template["id"], "context": {}}
    schedule = await create_schedule(api, NEVER, target, overlap=overlap)
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    execution = await _started(api, schedule)
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    await until_events(database, schedule, 2)

    async def over() -> bool:
        return (await _execution(api, execution))["runtimeStatus"] == ended

    await until(over)
    await api.delete(f"/schedules/{schedule['id']}")


@pytest.mark.usefixtures("working")
async def test_a_context_that_cannot_be_worked_out_stands_in_the_schedule(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    context = {"n": {"type": "expr", "expr": "$number(__trigger__.scheduleName)"}}
    schedule = await create_schedule(api, NEVER, {"templateId": template["id"], "context": context})
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)

    async def failed() -> Json | None:
        found = await ok(await api.get(f"/schedules/{schedule['id']}"))
        return found if found["lastError"] else None

    found = await until(failed)
    assert (found["failures"], found["lastError"][:17]) == (1, "EXPRESSION_FAILED")
    assert await events_of(database, schedule) == []


@pytest.mark.usefixtures("working")
async def test_the_workflow_of_a_tick_replays_from_its_history(
    api: httpx.AsyncClient, settings: Settings, worker_client: Client
) -> None:
    template = await active_template(api, WAITING)
    schedule = await create_schedule(api, NEVER, {"templateId": template["id"], "context": {}}, overlap="CANCEL_OTHER")
    for count in (1, 2):
        await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
        await _started(api, schedule, count)
    again = Replayer(workflows=[TickRun], data_converter=worker_client.data_converter)
    query = f"TaskQueue = '{settings.temporal.task_queue}' AND WorkflowType = '{TICK_WORKFLOW}'"
    replayed = 0
    async for run in worker_client.list_workflows(query):
        await again.replay_workflow(await worker_client.get_workflow_handle(run.id, run_id=run.run_id).fetch_history())
        replayed += 1
    assert replayed >= 2
