"""Schedules: stored here, carried by Temporal, and brought together again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from temporalio.client import Client

from app.contracts import schedule_id_of
from app.db.session import Database
from app.schedules.reconciling import reconcile_schedules
from app.settings import Settings, TemporalSettings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, ok, refused
from worker import build_worker

HOURLY = {"cron": ["0 * * * *"]}
NEVER = {"cron": ["0 0 1 1 *"]}
EVERY_SECOND = {"intervals": [{"every": "PT1S"}]}
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

Condition = Callable[[], Awaitable[Any]]


@pytest.fixture(scope="module")
async def worker_client(temporal_address: str, converter: Any) -> Client:
    return await Client.connect(temporal_address, data_converter=converter)


@pytest.fixture
async def working(worker_client: Client, database: Database, settings: Settings) -> AsyncIterator[None]:
    """A worker for as long as the test."""
    async with build_worker(worker_client, database, settings, ()):
        yield


async def _create(api: httpx.AsyncClient, spec: Json, target: Json | None = None, **fields: Any) -> Json:
    body = {"name": f"s-{uuid4().hex}", "spec": spec, "target": target or {"triggerKey": "test.tick"}, **fields}
    return await ok(await api.post("/schedules", json=body), 201)


async def _events(database: Database, schedule: Json) -> list[Json]:
    statement = "SELECT * FROM trigger_event WHERE dedupe_key LIKE $1 ORDER BY dedupe_key"
    async with database.driver() as connection:
        return [dict(row) for row in await connection.fetch(statement, f"{schedule['id']}:%")]


async def _until(condition: Condition, within: float = 20.0) -> Any:
    end = asyncio.get_running_loop().time() + within
    while asyncio.get_running_loop().time() < end:
        found = await condition()
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError("it has not come about in time")


async def _until_events(database: Database, schedule: Json, count: int) -> list[Json]:
    async def enough() -> list[Json] | None:
        found = await _events(database, schedule)
        return found if len(found) >= count else None

    found: list[Json] = await _until(enough)
    return found


async def _deliver(api: httpx.AsyncClient, database: Database, event: Json, template: Json) -> str:
    """What the dispatcher does with an event that names its template."""
    answer = await ok(await api.post(f"/templates/{template['id']}/execute", json={"context": {}}), 202)
    async with database.driver() as connection, connection.transaction():
        await connection.execute(
            "INSERT INTO trigger_delivery (id, event_id, target, kind, template_id, execution_id, status)"
            " VALUES ($1, $2, 'template', 'START', $3, $4, 'STARTED')",
            uuid4(), event["id"], UUID(template["id"]), UUID(answer["executionId"]),
        )  # fmt: skip
        await connection.execute("UPDATE trigger_event SET status = 'HANDLED' WHERE id = $1", event["id"])
    return str(answer["executionId"])


async def _execution(api: httpx.AsyncClient, execution_id: str) -> Json:
    return await ok(await api.get(f"/executions/{execution_id}"))


async def test_a_schedule_is_read_changed_listed_and_deleted(api: httpx.AsyncClient, worker_client: Client) -> None:
    created = await _create(api, HOURLY, description="as it was")
    assert created["synced"] is True
    assert created["spec"] == HOURLY
    changed = await ok(await api.patch(f"/schedules/{created['name']}", json={"spec": NEVER, "description": None}))
    assert (changed["spec"], changed["description"], changed["synced"]) == (NEVER, None, True)
    assert created["id"] in [one["id"] for one in (await ok(await api.get("/schedules")))["items"]]
    times = (await ok(await api.get(f"/schedules/{created['id']}/next?count=2")))["items"]
    assert [time[5:] for time in times] == ["01-01T00:00:00Z", "01-01T00:00:00Z"]
    assert (await api.delete(f"/schedules/{created['id']}")).status_code == 204
    refused(await api.get(f"/schedules/{created['id']}"), 404, "SCHEDULE_NOT_FOUND")
    with pytest.raises(Exception, match="not found"):
        await worker_client.get_schedule_handle(schedule_id_of(created["id"])).describe()


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"cron": ["61 * * * *"]}, "CRON_INVALID"),
        ({"cron": ["every day"]}, "CRON_INVALID"),
        ({"cron": ["TZ=Europe/Berlin 0 9 * * *"]}, "CRON_INVALID"),
        ({"cron": ["0 9 * * *"], "timeZone": "Mars/Phobos"}, "TIME_ZONE_UNKNOWN"),
        ({}, "SPEC_EMPTY"),
        ({"intervals": [{"every": "PT10S", "offset": "PT20S"}]}, "OFFSET_TOO_LONG"),
        ({"cron": ["0 9 * * *"], "startAt": "2030-01-02T00:00:00Z", "endAt": "2030-01-01T00:00:00Z"}, "SPEC_NEVER"),
    ],
)
async def test_a_specification_that_means_nothing_is_refused_with_a_code(
    api: httpx.AsyncClient, spec: Json, code: str
) -> None:
    body = {"name": f"s-{uuid4().hex}", "spec": spec, "target": {"triggerKey": "test.tick"}}
    problem = refused(await api.post("/schedules", json=body), 422, "REQUEST_INVALID")
    assert code in [one["code"] for one in problem["problems"]]
    problem = refused(await api.post("/schedules/preview", json=spec), 422, "REQUEST_INVALID")
    assert code in [one["code"] for one in problem["problems"]]


async def test_what_only_temporal_refuses_is_refused_and_not_stored(api: httpx.AsyncClient) -> None:
    name = f"s-{uuid4().hex}"
    spec = {"calendars": [{"hour": [25]}]}
    body = {"name": name, "spec": spec, "target": {"triggerKey": "test.tick"}}
    refused(await api.post("/schedules", json=body), 422, "SCHEDULE_SPEC_INVALID")
    refused(await api.get(f"/schedules/{name}"), 404, "SCHEDULE_NOT_FOUND")


async def test_a_name_is_given_once_and_a_target_must_be_there(api: httpx.AsyncClient) -> None:
    created = await _create(api, HOURLY)
    body = {"name": created["name"], "spec": HOURLY, "target": {"triggerKey": "test.tick"}}
    refused(await api.post("/schedules", json=body), 409, "NAME_TAKEN")
    body = {"name": "nowhere", "spec": HOURLY, "target": {"templateId": "there-is-none"}}
    refused(await api.post("/schedules", json=body), 404, "TEMPLATE_NOT_FOUND")
    body = {"name": "nowhere", "spec": HOURLY, "target": {"templateId": "x", "context": {"type": "expr", "expr": "("}}}
    refused(await api.post("/schedules", json=body), 422, "REQUEST_INVALID")


async def test_a_preview_leaves_nothing_behind(
    api: httpx.AsyncClient, worker_client: Client, settings: Settings
) -> None:
    spec = {"cron": ["30 9 * * MON"], "timeZone": "Europe/Berlin"}
    asked = await api.post("/schedules/preview?count=2&after=2027-01-01T00:00:00Z", json=spec)
    assert (await ok(asked))["items"] == ["2027-01-04T08:30:00Z", "2027-01-11T08:30:00Z"]
    left = [one.id async for one in await worker_client.list_schedules()]
    assert not any(one.startswith("schedule-preview/") for one in left)


@pytest.mark.usefixtures("working")
async def test_a_tick_puts_one_event_into_the_inbox(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api)
    context = {"when": {"type": "expr", "expr": "__trigger__.triggerTime"}, "fixed": 7}
    schedule = await _create(api, NEVER, {"templateId": template["slug"], "context": context, "name": "nightly"})
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    [event] = await _until_events(database, schedule, 1)
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
    [run] = (await ok(await api.get(f"/schedules/{schedule['id']}/runs")))["items"]
    assert (run["eventRecordId"], run["executionIds"]) == (str(event["id"]), [])


async def test_ticks_that_came_while_the_worker_was_away_are_stored_once_for_each_nominal_time(
    api: httpx.AsyncClient, database: Database, worker_client: Client, settings: Settings
) -> None:
    schedule = await _create(api, EVERY_SECOND, overlap="ALLOW_ALL", maxExecutions=3)
    await asyncio.sleep(5)
    assert await _events(database, schedule) == []
    async with build_worker(worker_client, database, settings, ()):
        found = await _until_events(database, schedule, 3)
        await asyncio.sleep(2)
    times = [datetime.fromisoformat(one["payload"]["triggerTime"]) for one in found]
    assert [later - earlier for earlier, later in pairwise(times)] == [timedelta(seconds=1)] * 2
    assert [one["times"] for one in await _events(database, schedule)] == [1, 1, 1]


@pytest.mark.usefixtures("working")
async def test_a_limit_counts_what_came_by_the_clock_and_can_be_raised(
    api: httpx.AsyncClient, database: Database
) -> None:
    schedule = await _create(api, EVERY_SECOND, overlap="ALLOW_ALL", maxExecutions=2)
    await _until_events(database, schedule, 2)
    await asyncio.sleep(2.5)
    assert len(await _events(database, schedule)) == 2
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    await _until_events(database, schedule, 3)
    raised = await ok(await api.patch(f"/schedules/{schedule['id']}", json={"maxExecutions": 3}))
    assert raised["remaining"] == 1
    await _until_events(database, schedule, 4)
    await asyncio.sleep(2.5)
    assert len(await _events(database, schedule)) == 4


@pytest.mark.usefixtures("working")
async def test_a_paused_schedule_does_not_come_until_it_is_resumed(api: httpx.AsyncClient, database: Database) -> None:
    schedule = await _create(api, EVERY_SECOND, overlap="ALLOW_ALL")
    await _until_events(database, schedule, 1)
    paused = await ok(await api.post(f"/schedules/{schedule['id']}/pause", json={"note": "stocktaking"}))
    assert (paused["paused"], paused["note"]) == (True, "stocktaking")
    await asyncio.sleep(1.5)
    before = len(await _events(database, schedule))
    await asyncio.sleep(2.5)
    assert len(await _events(database, schedule)) == before
    assert (await ok(await api.post(f"/schedules/{schedule['id']}/resume")))["paused"] is False
    await _until_events(database, schedule, before + 1)
    await api.delete(f"/schedules/{schedule['id']}")


@pytest.mark.usefixtures("working")
async def test_with_skip_nothing_comes_while_what_was_started_runs(api: httpx.AsyncClient, database: Database) -> None:
    template = await active_template(api, WAITING)
    schedule = await _create(api, EVERY_SECOND, {"templateId": template["id"]} | {"context": {}}, overlap="SKIP")
    [event] = await _until_events(database, schedule, 1)
    execution = await _deliver(api, database, event, template)
    await asyncio.sleep(3)
    assert len(await _events(database, schedule)) == 1
    completed = await api.post(f"/executions/{execution}/steps/ask/complete", json={})
    assert completed.status_code == 200, completed.text
    await _until_events(database, schedule, 2)
    await api.delete(f"/schedules/{schedule['id']}")


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize(("overlap", "ended"), [("CANCEL_OTHER", "CANCELLED"), ("TERMINATE_OTHER", "TERMINATED")])
async def test_the_next_time_ends_what_the_last_one_started(
    api: httpx.AsyncClient, database: Database, overlap: str, ended: str
) -> None:
    template = await active_template(api, WAITING)
    target = {"templateId": template["id"], "context": {}}
    schedule = await _create(api, NEVER, target, overlap=overlap)
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    [event] = await _until_events(database, schedule, 1)
    execution = await _deliver(api, database, event, template)
    await asyncio.sleep(1)
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    await _until_events(database, schedule, 2)

    async def over() -> bool:
        return (await _execution(api, execution))["runtimeStatus"] == ended

    await _until(over)
    await api.delete(f"/schedules/{schedule['id']}")


@pytest.mark.usefixtures("working")
async def test_what_was_overtaken_before_it_was_delivered_starts_nothing(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api, WAITING)
    schedule = await _create(api, NEVER, {"templateId": template["id"], "context": {}}, overlap="CANCEL_OTHER")
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    await _until_events(database, schedule, 1)
    await asyncio.sleep(1.1)
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)
    first, second = await _until_events(database, schedule, 2)
    assert (first["status"], second["status"]) == ("HANDLED", "PENDING")


@pytest.mark.usefixtures("working")
async def test_a_context_that_cannot_be_worked_out_stands_in_the_schedule(
    api: httpx.AsyncClient, database: Database
) -> None:
    template = await active_template(api)
    context = {"n": {"type": "expr", "expr": "$number(__trigger__.scheduleName)"}}
    schedule = await _create(api, NEVER, {"templateId": template["id"], "context": context})
    await ok(await api.post(f"/schedules/{schedule['id']}/run"), 202)

    async def failed() -> Json | None:
        found = await ok(await api.get(f"/schedules/{schedule['id']}"))
        return found if found["lastError"] else None

    found = await _until(failed)
    assert (found["failures"], found["lastError"][:17]) == (1, "EXPRESSION_FAILED")
    assert await _events(database, schedule) == []


async def test_what_was_deleted_or_changed_in_temporal_is_put_right(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, worker_client: Client
) -> None:
    deleted, changed = await _create(api, HOURLY), await _create(api, HOURLY)
    await worker_client.get_schedule_handle(schedule_id_of(deleted["id"])).delete()
    await worker_client.get_schedule_handle(schedule_id_of(changed["id"])).pause(note="by hand")

    async def right() -> bool:
        await reconcile_schedules(database, temporal)
        times = await api.get(f"/schedules/{deleted['id']}/next")
        described = await worker_client.get_schedule_handle(schedule_id_of(changed["id"])).describe()
        return times.status_code == 200 and not described.schedule.state.paused

    await _until(right)


async def test_what_no_row_knows_any_more_is_deleted_in_temporal(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, worker_client: Client
) -> None:
    kept, orphan = await _create(api, HOURLY), await _create(api, HOURLY)
    async with database.driver() as connection:
        await connection.execute("DELETE FROM schedule_trigger WHERE id = $1", UUID(orphan["id"]))

    async def gone() -> bool:
        await reconcile_schedules(database, temporal, timedelta())
        left = {one.id async for one in await worker_client.list_schedules()}
        return schedule_id_of(orphan["id"]) not in left

    await _until(gone)
    await worker_client.get_schedule_handle(schedule_id_of(kept["id"])).describe()


async def test_another_installations_schedules_are_let_be(
    api: httpx.AsyncClient, database: Database, converter: Any, settings: Settings, worker_client: Client
) -> None:
    other = await _create(api, HOURLY)
    elsewhere = TemporalSettings(**(settings.temporal.model_dump() | {"task_queue": "of-somebody-else"}))
    async with database.driver() as connection:
        await connection.execute("DELETE FROM schedule_trigger WHERE id = $1", UUID(other["id"]))
    await reconcile_schedules(database, Temporal(elsewhere, converter), timedelta())
    await worker_client.get_schedule_handle(schedule_id_of(other["id"])).describe()


async def test_a_schedule_made_while_temporal_is_away_is_made_there_later(
    serve: Serve, settings: Settings, database: Database, converter: Any, temporal: Temporal, api: httpx.AsyncClient
) -> None:
    away = TemporalSettings(**(settings.temporal.model_dump() | {"address": "127.0.0.1:1", "connect_timeout": 0.5}))
    without = await serve(settings, database, Temporal(away, converter))
    created = await _create(without, HOURLY)
    assert created["synced"] is False
    assert created["syncError"].startswith("TEMPORAL_UNAVAILABLE")
    refused(await api.get(f"/schedules/{created['id']}/next"), 409, "SCHEDULE_NOT_SYNCED")
    refused(await without.post(f"/schedules/{created['id']}/run"), 503, "TEMPORAL_UNAVAILABLE")
    await reconcile_schedules(database, temporal)
    found = await ok(await api.get(f"/schedules/{created['id']}"))
    assert (found["synced"], found["syncError"]) == (True, None)
    assert len((await ok(await api.get(f"/schedules/{created['id']}/next")))["items"]) == 10


# Both changes of 2027 in three zones: the local time that is skipped, and the one that comes twice.
CHANGES = [
    ("Europe/Berlin", "30 2 * * *", "2027-03-27T12:00:00Z", ["2027-03-29T00:30:00Z"]),
    ("Europe/Berlin", "30 2 * * *", "2027-10-30T12:00:00Z", ["2027-10-31T01:30:00Z", "2027-11-01T01:30:00Z"]),
    ("America/New_York", "30 2 * * *", "2027-03-13T12:00:00Z", ["2027-03-15T06:30:00Z"]),
    ("America/New_York", "30 1 * * *", "2027-11-06T12:00:00Z", ["2027-11-07T05:30:00Z", "2027-11-07T06:30:00Z"]),
    ("Australia/Lord_Howe", "15 2 * * *", "2027-10-02T00:00:00Z", ["2027-10-02T15:45:00Z", "2027-10-03T15:15:00Z"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2027-04-03T00:00:00Z", ["2027-04-03T15:15:00Z", "2027-04-04T15:15:00Z"]),
]


@pytest.mark.parametrize(("zone", "cron", "after", "expected"), CHANGES)
async def test_a_change_of_the_clock_is_gone_through_as_the_manual_says(
    api: httpx.AsyncClient, zone: str, cron: str, after: str, expected: list[str]
) -> None:
    spec = {"cron": [cron], "timeZone": zone}
    asked = await api.post(f"/schedules/preview?count={len(expected)}&after={after}", json=spec)
    assert (await ok(asked))["items"] == expected


async def test_an_interval_does_not_mind_a_change_of_the_clock(api: httpx.AsyncClient) -> None:
    spec = {"intervals": [{"every": "PT6H"}], "timeZone": "Europe/Berlin"}
    asked = await api.post("/schedules/preview?count=8&after=2027-03-27T12:00:00Z", json=spec)
    times = [datetime.fromisoformat(time) for time in (await ok(asked))["items"]]
    assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(hours=6)}
