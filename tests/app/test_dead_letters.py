"""Dead letters: listed, narrowed, purged by people and by age."""

from datetime import timedelta

import httpx
import pytest
from temporalio.client import Client

from app.db.session import Database
from app.executions.reconciler import reconcile_once
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, ok, refused
from tests.app.steering import ANN, failed

pytestmark = pytest.mark.usefixtures("stand_in")


async def test_dead_letters_are_listed_narrowed_and_purged(
    api: httpx.AsyncClient, database: Database, temporal_client: Client
) -> None:
    template = await active_template(api)
    made = [await failed(api, database, template, temporal_client, {"n": n}) for n in range(3)]
    params: dict[str, str] = {"template": template["slug"], "limit": "2"}
    page = await ok(await api.get("/dead-letters", params=params))
    rest = await ok(await api.get("/dead-letters", params={**params, "cursor": page["nextCursor"]}))
    assert [one["executionId"] for one in page["items"] + rest["items"]] == made[::-1]
    assert (page["items"][0]["code"], page["items"][0]["attempts"]) == ("NO_STOCK", 3)
    assert (await ok(await api.get("/dead-letters", params={**params, "code": "OTHER"})))["items"] == []
    assert (await ok(await api.get("/dead-letters", params={**params, "retried": "true"})))["items"] == []

    refused(await api.post("/dead-letters/purge", json={}), 422, "PURGE_UNBOUNDED")
    body: Json = {"executionIds": made[:2]}
    assert await ok(await api.post("/dead-letters/purge", json={**body, "dryRun": True})) == {
        "purged": 2,
        "dryRun": True,
    }
    assert (await ok(await api.post("/dead-letters/purge", json=body, headers=ANN)))["purged"] == 2
    refused(await api.get(f"/dead-letters/{made[0]}"), 404, "DEAD_LETTER_NOT_FOUND")
    refused(await api.post(f"/dead-letters/{made[0]}/retry"), 404, "DEAD_LETTER_NOT_FOUND")
    [event] = (await ok(await api.get("/audit", params={"action": "PURGE_DEAD_LETTERS"})))["items"]
    assert (event["actor"], event["after"], event["request"]) == ("ann", {"purged": 2}, body)


async def test_old_dead_letters_are_purged_by_the_reconciler(
    api: httpx.AsyncClient, database: Database, temporal: Temporal, template: Json, temporal_client: Client
) -> None:
    old = await failed(api, database, template, temporal_client, {})
    young = await failed(api, database, template, temporal_client, {})
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(
            f"UPDATE dead_letter SET created_at = now() - interval '31 days' WHERE execution_id = '{old}'"
        )
    await reconcile_once(database, temporal, timedelta(0))
    refused(await api.get(f"/dead-letters/{old}"), 404, "DEAD_LETTER_NOT_FOUND")
    await ok(await api.get(f"/dead-letters/{young}"))
