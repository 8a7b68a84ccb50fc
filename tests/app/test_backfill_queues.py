"""Backfills whose template makes them wait: what had to queue is counted like the rest, whatever becomes of them."""

import httpx
import pytest

from tests.app.scenes import Json, active_template, ok
from tests.app.test_backfill_runs import begun, ended, executions_of, row, rows_of, until

pytestmark = pytest.mark.usefixtures("working")


async def _queueing_template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api)
    return await ok(await api.patch(f"/templates/{template['slug']}", json={"whenPaused": "QUEUE"}))


async def _queued(api: httpx.AsyncClient, path: str, count: int) -> None:
    async def there() -> bool:
        return [one["code"] for one in await rows_of(api, path)].count("TEMPLATE_PAUSED") == count

    await until(there)


async def _started(api: httpx.AsyncClient, path: str, count: int) -> Json:
    async def there() -> Json | None:
        found = await ok(await api.get(path))
        return found if found["rows"]["started"] == count else None

    found: Json = await until(there)
    return found


async def test_rows_that_queued_are_started_once_and_say_nothing_of_the_queue(api: httpx.AsyncClient) -> None:
    template = await _queueing_template(api)
    await ok(await api.post(f"/templates/{template['slug']}/pause"))
    path = await begun(api, [row(n) for n in range(1, 6)], template=template["slug"])
    await _queued(api, path, 5)
    await ok(await api.post(f"/templates/{template['slug']}/resume"))
    assert (await ended(api, path))["rows"]["started"] == 5
    rows = await rows_of(api, path)
    assert {(one["status"], one["code"], one["message"]) for one in rows} == {("STARTED", None, None)}
    assert {one["executionId"] for one in rows} == {one["id"] for one in await executions_of(api, template)}


@pytest.mark.parametrize(("action", "status"), [("pause", "PAUSED"), ("cancel", "CANCELLED")])
async def test_rows_that_queued_before_a_pause_or_a_cancel_are_counted_once_they_start(
    api: httpx.AsyncClient, action: str, status: str
) -> None:
    template = await _queueing_template(api)
    await ok(await api.post(f"/templates/{template['slug']}/pause"))
    path = await begun(api, [row(n) for n in range(1, 111)], template=template["slug"])
    await _queued(api, path, 100)
    await ok(await api.post(f"{path}/{action}"))
    await ok(await api.post(f"/templates/{template['slug']}/resume"))
    found = await _started(api, path, 100)
    assert (found["status"], found["rows"]["pending"]) == (status, 10)
    started = [one for one in await rows_of(api, path) if one["status"] == "STARTED"]
    assert {one["executionId"] for one in started} == {one["id"] for one in await executions_of(api, template)}
