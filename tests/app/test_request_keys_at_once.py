"""Twenty requests under one key at the very same moment: one deed, once in the audit, and twenty equal answers."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import update
from sqlmodel import col
from temporalio.client import Client

from app.audit.service import PENDING, REPEATED, audited, of_execution
from app.db.session import Database
from app.db.tables import AuditEvent
from tests.app.scenes import Json, active_template, create_template, link, ok, publish, purchase, refused
from tests.app.steering import ANN, FakeRepair, asked, audit, failed, start

pytestmark = pytest.mark.usefixtures("stand_in")

TIMES = 20
KEY = {**ANN, "Idempotency-Key": "once"}


@pytest.fixture(scope="module")
def repair() -> FakeRepair:
    return FakeRepair()


async def at_once(api: httpx.AsyncClient, path: str, body: Json, statuses: set[int]) -> list[Json]:
    """The answers to twenty equal requests; those that are told to ask again do."""

    async def ask() -> httpx.Response:
        answer = await api.post(path, json=body, headers=KEY)
        while answer.status_code == 409 and answer.json()["code"] == "IDEMPOTENCY_IN_PROGRESS":
            answer = await api.post(path, json=body, headers=KEY)
        return answer

    answers = await asyncio.gather(*(ask() for _ in range(TIMES)))
    assert {answer.status_code for answer in answers} <= statuses, [answer.text for answer in answers]
    return [answer.json() for answer in answers]


async def check_audit(api: httpx.AsyncClient, execution_id: str) -> None:
    """One deed was done; that the others asked for it again is there, and looks like what it is."""
    results = [event["result"] for event in await audit(api, execution_id)]
    assert len(results) == TIMES
    assert results.count(REPEATED) == TIMES - 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("pause", {}, 200),
        ("signals/go", {"n": 1}, 200),
        ("steps/confirm/complete", {}, 200),
        ("incidents/confirm", {"action": "fail"}, 200),
        ("cancel", {}, 202),
        ("cancel", {"compensate": False}, 202),
        ("terminate", {}, 200),
    ],
    ids=range(7),
)
async def test_deeds_under_one_key_at_once_are_one_deed(
    api: httpx.AsyncClient, template: Json, temporal_client: Client, path: str, body: Json, status: int
) -> None:
    execution_id = await start(api, template)
    answers = await at_once(api, f"/executions/{execution_id}/{path}", body, {status})
    assert all(answer == answers[0] for answer in answers)
    await check_audit(api, execution_id)
    if path in ("pause", "signals/go", "incidents/confirm"):
        assert len(await asked(temporal_client, execution_id)) == 1


async def test_migrations_under_one_key_at_once_are_one_migration(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    execution_id = await start(api, template)
    version = await publish(api, template, version="2.0.0")
    path = f"/executions/{execution_id}"
    answers = await at_once(api, f"{path}/migrate", {"versionId": version["id"]}, {200})
    assert all(answer == answers[0] for answer in answers)
    assert len((await ok(await api.get(f"{path}/lineage")))["items"]) == 1
    await check_audit(api, execution_id)


async def test_replays_under_one_key_at_once_are_one_replay(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await start(api, template, "finish")
    answers = await at_once(api, f"/executions/{execution_id}/replay", {}, {200, 202})
    (made,) = {answer["executionId"] for answer in answers}
    assert len((await ok(await api.get(f"/executions/{made}/lineage")))["items"]) == 1
    await check_audit(api, execution_id)


async def test_retries_under_one_key_at_once_are_one_retry(
    api: httpx.AsyncClient, database: Database, template: Json, temporal_client: Client
) -> None:
    execution_id = await failed(api, database, template, temporal_client, {"wait": True})
    answers = await at_once(api, f"/executions/{execution_id}/retry", {}, {202})
    assert all(answer == answers[0] for answer in answers)
    assert len((await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]) == 1
    await check_audit(api, execution_id)


async def test_redeliveries_under_one_key_at_once_are_one(api: httpx.AsyncClient) -> None:
    template = await create_template(api)
    version = await publish(api, template)
    body = purchase(await link(api, template))
    problem = refused(await api.post("/triggers/product-purchases", json=body), 422, "TEMPLATE_NOT_ACTIVE")
    await ok(await api.post(f"/versions/{version['id']}/activate"))
    event_id = problem["eventRecordId"]
    answers = await at_once(api, f"/trigger-events/{event_id}/redeliver", {}, {202})
    assert all(answer == answers[0] for answer in answers)
    deeds = (await ok(await api.get("/audit", params={"entityId": event_id})))["items"]
    assert sorted(deed["result"] for deed in deeds) == ["DONE"] + [REPEATED] * (TIMES - 1)


async def test_what_is_refused_at_once_is_refused_to_all(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await start(api, template)
    await at_once(api, f"/executions/{execution_id}/steps/confirm/skip-timer", {"visit": 2}, {409})
    assert {event["result"] for event in await audit(api, execution_id)} == {"NO_TIMER"}


async def test_other_requests_under_one_key_at_once_are_conflicts(api: httpx.AsyncClient, template: Json) -> None:
    path = f"/executions/{await start(api, template)}/signals/go"
    answers = await asyncio.gather(*(api.post(path, json={"n": n}, headers=KEY) for n in range(TIMES)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * (TIMES - 1)
    assert {answer.json().get("code") for answer in answers} == {None, "IDEMPOTENCY_CONFLICT"}


async def test_who_has_waited_long_enough_for_the_first_is_told_so(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    execution_id = await start(api, template)
    deed = of_execution("TERMINATE", UUID(execution_id), "ann", key="terminate:once")
    async with audited(database, deed):
        answer = await api.post(f"/executions/{execution_id}/terminate", headers=KEY)
        refused(answer, 409, "IDEMPOTENCY_IN_PROGRESS")


async def test_a_deed_whose_process_has_died_does_not_keep_its_key_for_ever(
    api: httpx.AsyncClient, database: Database, template: Json
) -> None:
    execution_id = await start(api, template)
    async with database.transaction() as session:
        fields = {"action": "TERMINATE", "entity_kind": "EXECUTION", "entity_id": execution_id, "result": PENDING}
        left = AuditEvent(id=uuid4(), execution_id=UUID(execution_id), idempotency_key="terminate:once", **fields)
        session.add(left)
    async with database.transaction() as session:
        age = {"at": col(AuditEvent.at) - timedelta(minutes=2)}
        await session.execute(update(AuditEvent).where(col(AuditEvent.id) == left.id).values(**age))
    await ok(await api.post(f"/executions/{execution_id}/terminate", headers=KEY))
    assert sorted(event["result"] for event in await audit(api, execution_id)) == ["DONE", "UNKNOWN"]
