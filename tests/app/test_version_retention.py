"""Which versions go: old ones that nothing refers to, and no others."""

import asyncio
from datetime import timedelta

import httpx

from app.background import purge_forever
from app.db.session import Database
from app.settings import Settings
from app.temporal import Temporal
from app.versions.retention import KEPT, find_prunable, prune_versions
from tests.app.scenes import Json, create_draft, create_template, ok, publish, with_child


async def _versions(api: httpx.AsyncClient, template: Json) -> set[str]:
    page = await ok(await api.get(f"/templates/{template['id']}/versions?limit=100"))
    return {each["version"] for each in page["items"]}


async def _published(api: httpx.AsyncClient, count: int) -> tuple[Json, list[Json]]:
    template = await create_template(api)
    return template, [await publish(api, template, version=f"1.{number}.0") for number in range(count)]


async def test_the_last_published_versions_of_a_template_are_kept(api: httpx.AsyncClient, database: Database) -> None:
    template, _ = await _published(api, KEPT + 3)
    few, _ = await _published(api, KEPT)
    await create_draft(api, template, version="2.0.0")
    async with database.transaction() as session:
        assert len(await find_prunable(session)) == 3
    assert await prune_versions(database) == 3
    kept = {f"1.{number}.0" for number in range(3, KEPT + 3)}
    assert await _versions(api, template) == kept | {"2.0.0"}
    assert len(await _versions(api, few)) == KEPT
    assert await prune_versions(database) == 0


async def test_a_deprecated_version_goes_like_any_other(api: httpx.AsyncClient, database: Database) -> None:
    template, versions = await _published(api, KEPT + 1)
    await ok(await api.post(f"/versions/{versions[0]['id']}/deprecate"))
    assert await prune_versions(database) == 1
    assert "1.0.0" not in await _versions(api, template)


async def test_what_is_active_run_pinned_or_waited_for_is_kept(api: httpx.AsyncClient, database: Database) -> None:
    template, versions = await _published(api, 6)
    await ok(await api.patch(f"/templates/{template['id']}", json={"whenPaused": "QUEUE"}))
    execute = f"/templates/{template['id']}/execute"
    await ok(await api.post(f"/versions/{versions[0]['id']}/activate"))
    await ok(await api.post(execute, json={"version": "1.1.0"}), 202)
    parent = await create_template(api)
    await publish(api, parent, with_child({"childWorkflowTemplateVersionId": versions[2]["id"]}))
    by_name = {"childWorkflowTemplateVersionId": f"{template['slug']}@1.3.0"}
    await create_draft(api, parent, with_child(by_name), version="2.0.0")
    await ok(await api.post(f"/templates/{template['id']}/pause"))
    await ok(await api.post(execute, json={"version": "1.4.0"}), 202)
    for number in range(KEPT):
        await publish(api, template, version=f"2.{number}.0")
    assert await prune_versions(database) == 1
    assert {f"1.{number}.0" for number in range(5)} <= await _versions(api, template)
    assert "1.5.0" not in await _versions(api, template)


async def test_the_api_prunes_by_itself(api: httpx.AsyncClient, database: Database, temporal: Temporal) -> None:
    template, _ = await _published(api, KEPT + 1)
    purging = asyncio.create_task(purge_forever(database, temporal, Settings(), interval=timedelta(milliseconds=20)))
    async with asyncio.timeout(10):
        while "1.0.0" in await _versions(api, template):
            await asyncio.sleep(0.05)
    purging.cancel()
