"""Schedules: stored here, carried by Temporal, and brought together again."""

import asyncio
import json
import subprocess
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from temporalio.client import Client, ScheduleState
from temporalio.service import RPCError

from app.contracts import schedule_id_of
from app.db.session import Database
from app.db.statuses import EventSource
from app.inbox.storing import Incoming, store
from app.schedules.reconciling import reconcile_schedules
from app.settings import Settings, TemporalSettings
from app.temporal import Temporal
from tests.app.clockwork import HOURLY, NEVER, create_schedule, until
from tests.app.conftest import Serve
from tests.app.scenes import Json, active_template, ok, refused


async def test_a_schedule_is_read_changed_listed_and_deleted(api: httpx.AsyncClient, worker_client: Client) -> None:
    created = await create_schedule(api, HOURLY, description="as it was")
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
    created = await create_schedule(api, HOURLY)
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


async def test_what_was_deleted_or_changed_in_temporal_is_put_right(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, worker_client: Client
) -> None:
    deleted, changed = await create_schedule(api, HOURLY), await create_schedule(api, HOURLY)
    await worker_client.get_schedule_handle(schedule_id_of(deleted["id"])).delete()
    await worker_client.get_schedule_handle(schedule_id_of(changed["id"])).pause(note="by hand")

    async def right() -> bool:
        await reconcile_schedules(database, temporal)
        times = await api.get(f"/schedules/{deleted['id']}/next")
        described = await worker_client.get_schedule_handle(schedule_id_of(changed["id"])).describe()
        return times.status_code == 200 and not described.schedule.state.paused

    await until(right)


async def test_what_no_row_knows_any_more_is_deleted_in_temporal(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, worker_client: Client
) -> None:
    kept, orphan = await create_schedule(api, HOURLY), await create_schedule(api, HOURLY)
    async with database.driver() as connection:
        await connection.execute("DELETE FROM schedule_trigger WHERE id = $1", UUID(orphan["id"]))

    async def gone() -> bool:
        await reconcile_schedules(database, temporal, timedelta())
        left = {one.id async for one in await worker_client.list_schedules()}
        return schedule_id_of(orphan["id"]) not in left

    await until(gone)
    await worker_client.get_schedule_handle(schedule_id_of(kept["id"])).describe()


async def test_another_installations_schedules_are_let_be(
    api: httpx.AsyncClient, database: Database, converter: Any, settings: Settings, worker_client: Client
) -> None:
    other = await create_schedule(api, HOURLY)
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
    created = await create_schedule(without, HOURLY)
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


async def test_one_that_is_used_up_stays_so_when_it_is_made_again(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, worker_client: Client
) -> None:
    schedule = await create_schedule(api, HOURLY, maxExecutions=1)
    handle = worker_client.get_schedule_handle(schedule_id_of(schedule["id"]))
    async with database.driver() as connection:
        await connection.execute("UPDATE schedule_trigger SET remaining = 0 WHERE id = $1", UUID(schedule["id"]))
    await handle.delete()

    async def there() -> ScheduleState | None:
        await reconcile_schedules(database, temporal)
        try:
            state = (await handle.describe()).schedule.state
        except RPCError:
            return None
        return state if state.remaining_actions == 0 else None

    state = await until(there)
    assert (state.paused, state.limited_actions) == (False, True)


def _millrace(api: httpx.AsyncClient, *words: str) -> subprocess.CompletedProcess[str]:
    url = str(api.base_url).removesuffix("/api/v1/")
    command = [sys.executable, "-m", "app.cli.main", "schedules", *words, "--api", url]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_the_command_line_does_what_the_api_does(api: httpx.AsyncClient, tmp_path: Path) -> None:
    name = f"s-{uuid4().hex}"
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps({"name": name, "spec": HOURLY, "target": {"triggerKey": "test.tick"}}))
    said = {
        words[0]: await asyncio.to_thread(_millrace, api, *words)
        for words in (
            ("create", str(file)),
            ("pause", name, "--note", "stocktaking"),
            ("show", name),
            ("resume", name),
            ("run", name),
            ("next", name, "--count", "3"),
            ("list",),
            ("delete", name),
        )
    }
    assert {word: done.returncode for word, done in said.items()} == dict.fromkeys(said, 0), said
    assert "stocktaking" in said["show"].stdout
    assert len(said["next"].stdout.splitlines()) == 3
    assert name in said["list"].stdout
    gone = await asyncio.to_thread(_millrace, api, "show", name)
    assert (gone.returncode, "SCHEDULE_NOT_FOUND" in gone.stderr) == (1, True)


async def test_the_command_line_shows_slugs_and_times_of_the_schedules_own_zone(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    template = await active_template(api)
    spec = {"cron": ["30 2 * * *"], "timeZone": "America/New_York"}
    made = await create_schedule(api, spec, {"templateId": template["id"], "context": {}})
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec))
    since = ("--count", "2", "--after", "2027-03-12T12:00:00Z")
    # On 14 March 02:30 is skipped there.
    expected = ["2027-03-13 02:30:00 -05:00", "2027-03-15 02:30:00 -04:00"]
    for words in (("next", made["name"], *since), ("preview", str(file), *since)):
        assert (await asyncio.to_thread(_millrace, api, *words)).stdout.splitlines() == expected
    for words in (("list",), ("show", made["name"])):
        told = (await asyncio.to_thread(_millrace, api, *words)).stdout
        assert template["slug"] in told
        assert template["id"] not in told


async def test_what_a_schedule_brought_in_is_read_page_by_page_the_latest_first(
    api: httpx.AsyncClient, database: Database
) -> None:
    schedule, other = await create_schedule(api, HOURLY), await create_schedule(api, HOURLY)
    keys = [f"{one['id']}:2027-01-01T00:00:{n:02}Z" for n in range(5) for one in (schedule, other)]
    coming = [Incoming(EventSource.SCHEDULE, "test.tick", key, f"tick {key}", {}) for key in keys]
    async with database.driver() as connection:
        for one in coming:
            await store(connection, [one])
    path = f"/schedules/{schedule['name']}/runs"
    found, cursor = [], None
    for length in (2, 2, 1):
        page = await ok(await api.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {})))
        assert len(page["items"]) == length
        found += [one["summary"].removeprefix("tick ") for one in page["items"]]
        cursor = page["nextCursor"]
    assert cursor is None
    assert found == [key for key in reversed(keys) if key.startswith(schedule["id"])]
    refused(await api.get(path, params={"cursor": "bm9uZQ"}), 422, "CURSOR_INVALID")
