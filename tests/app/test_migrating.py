"""Going on with another version: tried out, made, refused, and settled when the answer was lost."""

import copy
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from app.db.session import Database
from app.executions.reconciler import reconcile_once
from app.temporal import Temporal
from tests.app.scenes import PLAIN, Json, active_template, ok, publish, refused
from tests.app.steering import ANN, audit, row_of, start

pytestmark = pytest.mark.usefixtures("stand_in")


async def test_a_migration_is_tried_out_then_made_and_remembered(
    api: httpx.AsyncClient, database: Database, temporal: Temporal
) -> None:
    template = await active_template(api)
    execution_id = await start(api, template)
    version = await publish(api, template, version="2.0.0")
    path = f"/executions/{execution_id}/migrate"
    body = {"versionId": version["id"], "dryRun": True}
    tried = await ok(await api.post(path, json=body))
    assert (tried["verdict"], tried["migrated"]) == ("SAFE", False)
    assert (await row_of(database, execution_id)).version_id != UUID(version["id"])
    assert await audit(api, execution_id) == []

    made = await ok(await api.post(path, json={"versionId": version["id"]}, headers=ANN))
    assert (made["verdict"], made["migrated"], made["version"]) == ("SAFE", True, "2.0.0")
    assert (await row_of(database, execution_id)).version_id == UUID(version["id"])
    [turn] = (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]
    assert (turn["kind"], turn["status"], turn["toVersionId"]) == ("MIGRATE", "DONE", version["id"])
    [event] = await audit(api, execution_id)
    assert (event["before"]["version"], event["after"]["version"]) == ("1.0.0", "2.0.0")
    refused(await api.post(path, json={"versionId": version["id"]}), 409, "VERSION_UNCHANGED")


async def test_a_migration_that_needs_a_mapping_is_refused_with_every_finding(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    execution_id = await start(api, template)
    version = await publish(api, template, version="3.0.0")
    path = f"/executions/{execution_id}/migrate"
    problem = refused(await api.post(path, json={"versionId": version["id"]}), 409, "MIGRATION_NEEDS_MAPPING")
    assert problem["problems"] == [{"path": "confirm", "message": "it is not there", "code": "NEEDS_MAPPING"}]
    assert (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"] == []
    mapped = {"versionId": version["id"], "mapping": {"note": "note"}}
    assert (await ok(await api.post(path, json=mapped)))["migrated"] is True


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_mapping_of_steps_that_the_execution_does_not_have_is_refused_and_names_them(
    api: httpx.AsyncClient, dry_run: bool
) -> None:
    template = await active_template(api)
    execution_id = await start(api, template)
    version = await publish(api, template, version="2.0.0")
    body = {"versionId": version["id"], "mapping": {"nope": "note", "note": "note", "gone": "end"}, "dryRun": dry_run}
    problem = refused(await api.post(f"/executions/{execution_id}/migrate", json=body), 422, "MAPPING_UNKNOWN")
    assert [one["path"] for one in problem["problems"]] == ["mapping.gone", "mapping.nope"]


async def test_a_repeated_migration_is_not_judged_by_the_version_that_it_has_led_to(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    execution_id = await start(api, template)
    other = copy.deepcopy(PLAIN)
    other["steps"][1]["id"] = other["stepTransitions"][0]["toStepId"] = "remark"
    other["stepTransitions"][1]["fromStepId"] = "remark"
    version = await publish(api, template, other, version="2.0.0")
    body = {"versionId": version["id"], "mapping": {"note": "remark"}}
    for _ in range(2):
        answer = await api.post(f"/executions/{execution_id}/migrate", json=body, headers={"Idempotency-Key": "m"})
        assert (await ok(answer))["migrated"] is True


async def test_an_execution_cannot_migrate_to_what_is_no_published_version_of_its_template(
    api: httpx.AsyncClient, template: Json
) -> None:
    execution_id = await start(api, template)
    path = f"/executions/{execution_id}/migrate"
    stranger = await publish(api, await active_template(api), version="2.0.0")
    refused(await api.post(path, json={"versionId": stranger["id"]}), 422, "VERSION_OF_OTHER_TEMPLATE")
    refused(await api.post(path, json={"versionId": str(uuid4())}), 404, "VERSION_NOT_FOUND")
    body = {"version": "7.0.0", "definition": stranger["definition"]}
    draft = await ok(await api.post(f"/templates/{template['id']}/versions", json=body), 201)
    refused(await api.post(path, json={"versionId": draft["id"]}), 409, "VERSION_NOT_PUBLISHED")


async def test_a_migration_whose_answer_was_lost_is_settled_by_asking_the_run(
    api: httpx.AsyncClient, database: Database, temporal: Temporal
) -> None:
    template = await active_template(api)
    execution_id = await start(api, template)
    version = await publish(api, template, version="2.0.0")
    await ok(await api.post(f"/executions/{execution_id}/migrate", json={"versionId": version["id"]}))
    # As if this process had died between the run's answer and the row.
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(
            "UPDATE execution_lineage SET status = 'PENDING', at = now() - interval '1 minute' "
            f"WHERE execution_id = '{execution_id}'"
        )
        await connection.exec_driver_sql(
            "UPDATE workflow_execution SET version_id = (SELECT from_version_id FROM execution_lineage "
            f"WHERE execution_id = '{execution_id}') WHERE id = '{execution_id}'"
        )
    await reconcile_once(database, temporal, timedelta(0))
    assert (await row_of(database, execution_id)).version_id == UUID(version["id"])
    [turn] = (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]
    assert turn["status"] == "DONE"
