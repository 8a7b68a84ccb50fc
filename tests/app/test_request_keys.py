"""Requests that are repeated with their key: done once, answered alike; and keys that are used for something else."""

from typing import Any

import httpx
import pytest
from temporalio.client import Client

from tests.app.scenes import Json, active_template, ok, publish, refused
from tests.app.steering import ANN, asked, audit, ended, start

pytestmark = pytest.mark.usefixtures("stand_in")

KEY = {**ANN, "Idempotency-Key": "once"}


@pytest.mark.parametrize(
    ("path", "body", "other", "status"),
    [
        ("pause", {}, None, 200),
        ("steps/confirm/skip-timer", {"visit": 1}, {"visit": 3}, 200),
        ("incidents/confirm", {"action": "complete", "output": 1}, {"action": "complete", "output": 2}, 200),
        ("steps/confirm/complete", {"comment": "one"}, {"comment": "two"}, 200),
        ("signals/go", {"n": 1}, {"n": 2}, 200),
        ("cancel", {"compensate": False}, {"compensate": True}, 202),
        ("terminate", {}, None, 200),
    ],
)
async def test_a_request_repeated_with_its_key_gets_the_first_answer_also_after_the_end(
    api: httpx.AsyncClient, template: Json, temporal_client: Client, path: str, body: Json, other: Any, status: int
) -> None:
    execution_id = await start(api, template)
    url = f"/executions/{execution_id}/{path}"
    first = await ok(await api.post(url, json=body, headers=KEY), status)
    assert await ok(await api.post(url, json=body, headers=KEY), status) == first
    if other is not None:
        refused(await api.post(url, json=other, headers=KEY), 409, "IDEMPOTENCY_CONFLICT")
    if path not in ("cancel", "terminate", "steps/confirm/complete"):
        assert len(await asked(temporal_client, execution_id)) == 1
        await ok(await api.post(f"/executions/{execution_id}/terminate"))
    await ended(temporal_client, execution_id)
    assert await ok(await api.post(url, json=body, headers=KEY), status) == first


async def test_a_migration_repeated_with_its_key_is_made_once(api: httpx.AsyncClient) -> None:
    template = await active_template(api)
    execution_id = await start(api, template)
    version = await publish(api, template, version="2.0.0")
    path, body = f"/executions/{execution_id}/migrate", {"versionId": version["id"]}
    first = await ok(await api.post(path, json=body, headers=KEY))
    assert await ok(await api.post(path, json=body, headers=KEY)) == first
    refused(await api.post(path, json={**body, "mapping": {"a": "b"}}, headers=KEY), 409, "IDEMPOTENCY_CONFLICT")
    refused(await api.post(path, json=body), 409, "VERSION_UNCHANGED")
    turns = (await ok(await api.get(f"/executions/{execution_id}/lineage")))["items"]
    assert len(turns) == 1


async def test_what_was_refused_does_not_use_its_key_up(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await start(api, template)
    path = f"/executions/{execution_id}/steps/confirm/skip-timer"
    refused(await api.post(path, json={"visit": 2}, headers=KEY), 409, "NO_TIMER")
    assert (await ok(await api.post(path, json={"visit": 1}, headers=KEY)))["status"] == "APPLIED"
    assert [event["result"] for event in await audit(api, execution_id)] == ["APPLIED", "NO_TIMER"]


@pytest.mark.parametrize("payload", [1e30, {"n": [1e23, -0.0, 1.0, "é"]}, None])
async def test_a_repetition_is_known_by_numbers_that_the_database_writes_otherwise(
    api: httpx.AsyncClient, template: Json, payload: Any
) -> None:
    path = f"/executions/{await start(api, template)}/signals/go"
    first = await ok(await api.post(path, json=payload, headers=KEY))
    assert await ok(await api.post(path, json=payload, headers=KEY)) == first
    refused(await api.post(path, json="other", headers=KEY), 409, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize("deed", ["pause", "resume", "cancel", "terminate"])
async def test_a_deed_on_many_repeated_with_its_key_gets_the_first_answers(
    api: httpx.AsyncClient, template: Json, temporal_client: Client, deed: str
) -> None:
    execution_id = await start(api, template)
    if deed == "resume":
        await ok(await api.post(f"/executions/{execution_id}/pause"))
    body = {"filter": {"ids": [execution_id]}}
    first = await ok(await api.post(f"/executions/bulk/{deed}", json=body, headers=KEY))
    assert first["refused"] == 0
    assert await ok(await api.post(f"/executions/bulk/{deed}", json=body, headers=KEY)) == first


async def test_a_step_that_is_called_like_a_deed_has_keys_of_its_own(api: httpx.AsyncClient, template: Json) -> None:
    execution_id = await start(api, template)
    await ok(await api.post(f"/executions/{execution_id}/steps/cancel/complete", json={}, headers=KEY))
    await ok(await api.post(f"/executions/{execution_id}/cancel", json={}, headers=KEY), 202)
