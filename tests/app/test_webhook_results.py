"""Endpoints that answer with the result of what they start."""

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlmodel import col

from app.db.event_tables import Subscription, TriggerDefinition
from app.db.session import Database
from tests.app.scenes import Json, active_template, ok, refused, webhook

pytestmark = pytest.mark.usefixtures("stand_in")


async def subscribed(api: httpx.AsyncClient, database: Database, seconds: float = 10, **context: Any) -> Json:
    """A synchronous endpoint, to whose trigger a template has subscribed."""
    template = await active_template(api)
    endpoint = await webhook(api, response={"mode": "SYNC", "timeoutSeconds": seconds})
    async with database.transaction() as session:
        key = endpoint["triggerKey"]
        trigger = await session.execute(select(TriggerDefinition.id).where(col(TriggerDefinition.key) == key))
        given = {"template_id": template["id"], "trigger_id": trigger.scalar_one(), "trigger_key": key}
        session.add(Subscription(**given, context={"type": "const", "value": context}))
    return endpoint


async def test_a_synchronous_webhook_is_answered_with_the_output_also_when_it_comes_again(
    api: httpx.AsyncClient,
) -> None:
    template = await active_template(api)
    endpoint = await webhook(api, templateId=template["id"], response={"mode": "SYNC"})
    for _ in range(2):
        answer = await api.post(f"/hooks/{endpoint['path']}", json={"id": 7}, headers={"Idempotency-Key": "once"})
        assert (await ok(answer))["context"]["body"] == {"id": 7}


async def test_a_subscription_to_the_endpoint_starts_what_the_answer_is_of(
    api: httpx.AsyncClient, database: Database
) -> None:
    endpoint = await subscribed(api, database, amount=3)
    assert (await ok(await api.post(f"/hooks/{endpoint['path']}")))["context"] == {"amount": 3}


async def test_who_waits_in_vain_is_told_that_the_event_is_kept(api: httpx.AsyncClient, database: Database) -> None:
    nobody = await webhook(api, response={"mode": "SYNC"})
    for endpoint in (await subscribed(api, database, seconds=1, do="wait"), nobody):
        assert set(await ok(await api.post(f"/hooks/{endpoint['path']}"), 202)) == {"eventRecordId"}


async def test_an_execution_that_fails_is_said_to_have_failed(api: httpx.AsyncClient, database: Database) -> None:
    endpoint = await subscribed(api, database, do="fail")
    problem = refused(await api.post(f"/hooks/{endpoint['path']}"), 500, "EXECUTION_FAILED")
    assert problem["detail"].endswith("ended FAILED: NO_STOCK.")
    assert "nothing left" not in json.dumps(problem)
