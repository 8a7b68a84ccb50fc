"""Stored values go when no execution that matters can refer to them, and not before."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import delete, update
from sqlmodel import col, select

from app.background import purge_forever
from app.db.payload_tables import PayloadBlob
from app.db.session import Database
from app.db.tables import WorkflowExecution, new_id
from app.payloads.postgres import PostgresBlobs
from app.payloads.retention import keep_for, purge_blobs
from app.settings import PayloadSettings, Settings
from app.temporal import Temporal
from tests.app.scenes import Json, active_template, ok

KEEP = timedelta(days=45)


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    template = await active_template(api)
    return await ok(await api.get(f"/templates/{template['id']}"))


@pytest.fixture(autouse=True)
async def nothing_yet(database: Database) -> None:
    """Neither executions nor values."""
    async with database.transaction() as session:
        await session.execute(delete(WorkflowExecution))
        await session.execute(delete(PayloadBlob))


def _ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


async def _value(database: Database, last_used: float) -> str:
    """A value last used so many days ago."""
    name = uuid4().hex * 2
    await PostgresBlobs(database).write({name: name.encode()})
    async with database.transaction() as session:
        statement = update(PayloadBlob).where(col(PayloadBlob.sha256) == name)
        await session.execute(statement.values(last_used_at=_ago(last_used)))
    return name


async def _execution(
    database: Database, template: Json, created: float, ended: float | None = None, parent: UUID | None = None
) -> UUID:
    """An execution created, and perhaps ended, so many days ago."""
    execution_id = new_id()
    closed: dict[str, Any] = {}
    if ended is not None:
        closed = {"status": "COMPLETED", "ended_at": _ago(ended), "closed_as": "FAILED"}
    async with database.transaction() as session:
        session.add(
            WorkflowExecution(
                id=execution_id,
                name="E",
                version_id=UUID(template["activeVersionId"]),
                template_id=UUID(template["id"]),
                parent_id=parent,
                root_id=parent or execution_id,
                context={},
                created_at=_ago(created),
                **closed,
            )
        )
    return execution_id


async def _left(database: Database) -> set[str]:
    async with database.transaction() as session:
        return set((await session.execute(select(col(PayloadBlob.sha256)))).scalars())


async def test_without_executions_only_the_age_counts(database: Database) -> None:
    await _value(database, 46)
    kept = await _value(database, 44)
    assert await purge_blobs(database, KEEP) == 1
    assert await _left(database) == {kept}


async def test_what_an_open_execution_may_refer_to_is_kept(database: Database, template: Json) -> None:
    await _execution(database, template, created=300)
    await _value(database, 302)
    kept = {await _value(database, 299), await _value(database, 300.5), await _value(database, 100)}
    assert await purge_blobs(database, KEEP) == 1
    assert await _left(database) == kept


async def test_an_execution_that_ended_lately_counts_as_open(database: Database, template: Json) -> None:
    await _execution(database, template, created=300, ended=30)
    kept = await _value(database, 200)
    assert await purge_blobs(database, KEEP) == 0
    assert await _left(database) == {kept}


async def test_an_execution_that_ended_long_ago_keeps_nothing(database: Database, template: Json) -> None:
    await _execution(database, template, created=300, ended=46)
    await _value(database, 200)
    assert await purge_blobs(database, KEEP) == 1


async def test_a_young_child_may_refer_to_what_its_old_parent_was_given(database: Database, template: Json) -> None:
    parent = await _execution(database, template, created=300, ended=50)
    await _execution(database, template, created=60, parent=parent)
    kept = await _value(database, 290)
    assert await purge_blobs(database, KEEP) == 0
    assert await _left(database) == {kept}


async def test_the_api_purges_by_itself(database: Database, temporal: Temporal) -> None:
    await _value(database, 100)
    purging = asyncio.create_task(purge_forever(database, temporal, Settings(), interval=timedelta(milliseconds=20)))
    for _ in range(100):
        if not await _left(database):
            break
        await asyncio.sleep(0.05)
    assert await _left(database) == set()
    assert not purging.done()
    purging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await purging


async def test_values_are_never_kept_shorter_than_temporal_keeps_histories(
    database: Database, temporal: Temporal
) -> None:
    keep = await keep_for(temporal, PayloadSettings(keep_days=31))
    assert keep == timedelta(days=37), "the embedded server keeps histories for 30 days"
    with pytest.raises(ValueError, match="two days"):
        await purge_blobs(database, timedelta(days=1))
