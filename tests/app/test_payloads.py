"""Values kept outside history: once for each content, durable before anything refers to them, never silently lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlmodel import col, select
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.converter import DataConverter, StorageDriverStoreContext

from app.contracts import PAYLOAD_SHA256
from app.db.payload_tables import PayloadBlob
from app.db.session import Database
from app.executions.reconciler import reconcile_once
from app.payloads.content import ContentDriver, blob_of, definition_payload
from app.payloads.errors import PayloadUnavailable
from app.payloads.postgres import PostgresBlobs
from app.payloads.storage import PayloadStorage
from app.settings import DatabaseSettings, PayloadSettings, Settings
from app.temporal import Temporal
from tests.app.conftest import Serve
from tests.app.scenes import active_template, ok
from tests.app.tiny_workflow import running_worker
from tests.wire_cutter import Relay

QUICK = DatabaseSettings(connect_timeout=0.5)


@pytest.fixture
async def relayed_storage(relayed_database_url: str) -> AsyncIterator[PayloadStorage]:
    """A storage that waits four seconds for PostgreSQL."""
    storage = PayloadStorage(relayed_database_url, PayloadSettings(), QUICK, patience=4)
    yield storage
    await storage.close()


def _unique(size: int = 70_000) -> str:
    return uuid4().hex * (size // 32 + 1)


async def _blobs(database: Database, *names: str) -> list[PayloadBlob]:
    async with database.transaction() as session:
        found = await session.execute(select(PayloadBlob).where(col(PayloadBlob.sha256).in_(names)))
        return list(found.scalars())


async def _name_of(converter: DataConverter, value: object) -> str:
    """The name under which a value has been stored."""
    [reference] = await converter.encode([value])
    assert len(reference.external_payloads) == 1
    return str(json.loads(reference.data)["claimData"]["sha256"])


async def test_two_stores_of_the_same_content_are_one_row(
    converter: DataConverter, database: Database, database_url: str
) -> None:
    value = {"text": _unique()}
    other = PayloadStorage(database_url, PayloadSettings(), DatabaseSettings())
    names = await asyncio.gather(*(_name_of(one, value) for one in (converter, other.converter) for _ in range(5)))
    assert len(set(names)) == 1
    [blob] = await _blobs(database, *names)
    assert (blob.size, blob_of(Payload.FromString(blob.bytes))) == (len(blob.bytes), (blob.sha256, blob.bytes))
    [reference] = await converter.encode([value])
    assert await other.converter.decode([reference]) == [value]
    await other.close()


async def test_only_what_is_larger_than_the_threshold_is_stored(converter: DataConverter) -> None:
    small, large = await converter.encode(["x" * 60_000, "x" * 66_000])
    assert (len(small.external_payloads), len(large.external_payloads)) == (0, 1)
    assert large.ByteSize() < 400


async def test_a_definition_is_stored_however_small_it_is(converter: DataConverter, database: Database) -> None:
    payload = definition_payload(json.dumps({"steps": [uuid4().hex]}))
    [reference] = await converter.encode([RawValue(payload)])
    name = json.loads(reference.data)["claimData"]["sha256"]
    assert [blob.bytes for blob in await _blobs(database, name)] == [blob_of(payload)[1]]


async def test_a_payload_that_has_its_name_is_referred_to_and_not_stored(
    converter: DataConverter, database: Database
) -> None:
    name = "0" * 64
    [reference] = await converter.encode([RawValue(Payload(metadata={PAYLOAD_SHA256: name.encode()}))])
    assert json.loads(reference.data)["claimData"] == {"sha256": name}
    assert await _blobs(database, name) == []


async def test_a_value_used_again_is_as_good_as_new(
    converter: DataConverter, database: Database, database_url: str
) -> None:
    value = _unique()
    name = await _name_of(converter, value)
    await _aged(database, name, timedelta(days=100))
    await _name_of(converter, value)
    [blob] = await _blobs(database, name)
    assert blob.last_used_at < blob.created_at, "this process knows that it is stored, and asks nobody"
    other = PayloadStorage(database_url, PayloadSettings(), DatabaseSettings())
    await _name_of(other.converter, value)
    [blob] = await _blobs(database, name)
    assert blob.last_used_at >= blob.created_at
    await other.close()


async def test_what_a_process_knows_to_be_stored_it_forgets_in_time(database: Database) -> None:
    driver = ContentDriver(PostgresBlobs(database), cache_bytes=0, known_for=0)
    payload = definition_payload(_unique())
    context = StorageDriverStoreContext()
    [claim] = await driver.store(context, [payload])
    await _aged(database, claim.claim_data["sha256"], timedelta(days=100))
    await driver.store(context, [payload])
    [blob] = await _blobs(database, claim.claim_data["sha256"])
    assert blob.last_used_at >= blob.created_at


async def _aged(database: Database, name: str, by: timedelta) -> None:
    async with database.transaction() as session:
        statement = text(
            "UPDATE payload_blob SET last_used_at = last_used_at - CAST(:by AS interval) WHERE sha256 = :name"
        )
        await session.execute(statement, {"by": by, "name": name})


async def test_a_store_that_is_away_for_a_moment_is_waited_for(
    relayed_storage: PayloadStorage, postgres_relay: Relay, database: Database
) -> None:
    await postgres_relay.cut()
    value = _unique()
    storing = asyncio.create_task(_name_of(relayed_storage.converter, value))
    await asyncio.sleep(1)
    assert not storing.done()
    await postgres_relay.mend()
    assert len(await _blobs(database, await storing)) == 1


async def test_a_store_that_stays_away_is_a_coded_failure_that_may_be_retried(
    relayed_database_url: str, postgres_relay: Relay, converter: DataConverter
) -> None:
    storage = PayloadStorage(relayed_database_url, PayloadSettings(), QUICK)
    [reference] = await converter.encode([_unique()])
    await postgres_relay.cut()
    for call in (storage.converter.encode([_unique()]), storage.converter.decode([reference])):
        with pytest.raises(PayloadUnavailable) as raised:
            await call
        assert (raised.value.type, raised.value.non_retryable) == ("PAYLOAD_STORE_UNAVAILABLE", False)
    await storage.close()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("DELETE FROM payload_blob WHERE sha256 = :name", "PAYLOAD_NOT_FOUND"),
        ("UPDATE payload_blob SET bytes = bytes || '\\x00' WHERE sha256 = :name", "PAYLOAD_CORRUPT"),
    ],
)
async def test_a_value_that_is_gone_or_spoilt_has_a_code(
    converter: DataConverter, database: Database, database_url: str, change: str, code: str
) -> None:
    [reference] = await converter.encode([_unique()])
    async with database.transaction() as session:
        name = json.loads(reference.data)["claimData"]["sha256"]
        await session.execute(text(change), {"name": name})
    other = PayloadStorage(database_url, PayloadSettings(), DatabaseSettings())
    with pytest.raises(PayloadUnavailable) as raised:
        await other.converter.decode([reference])
    assert (raised.value.type, raised.value.non_retryable) == (code, False)
    await other.close()


async def test_an_output_that_was_stored_outside_is_read_over_the_api(
    api: httpx.AsyncClient,
    temporal_address: str,
    temporal_client: Client,
    task_queue: str,
    database: Database,
    database_url: str,
    settings: Settings,
    serve: Serve,
) -> None:
    small = PayloadSettings(threshold=2048)
    storage = PayloadStorage(database_url, small, DatabaseSettings())
    temporal = Temporal(settings.temporal, storage.converter)
    api = await serve(settings, database, temporal)
    template = await active_template(api)
    context = {"text": _unique(40_000)}
    async with running_worker(temporal_address, task_queue, storage.converter):
        path = f"/templates/{template['id']}/execute?wait=PT20S"
        ended = await ok(await api.post(path, json={"context": context}))
        assert ended["output"]["context"] == context
        read = await ok(await api.get(f"/executions/{ended['executionId']}"))
        assert read["output"]["context"] == context
    history = await temporal_client.get_workflow_handle(f"execution/{ended['executionId']}").fetch_history()
    assert sum(event.ByteSize() for event in history.events) < 4_000
    async with database.transaction() as session:
        await session.execute(text("DELETE FROM payload_blob"))
    await storage.close()
    forgetful = PayloadStorage(database_url, small, DatabaseSettings())
    api = await serve(settings, database, Temporal(settings.temporal, forgetful.converter))
    read = await ok(await api.get(f"/executions/{ended['executionId']}"))
    assert read["problem"]["code"] == "PAYLOAD_NOT_FOUND"
    await forgetful.close()


async def test_a_start_whose_definition_cannot_be_stored_is_postponed(
    serve: Serve,
    settings: Settings,
    database: Database,
    relayed_database_url: str,
    postgres_relay: Relay,
    temporal_client: Client,
) -> None:
    storage = PayloadStorage(relayed_database_url, PayloadSettings(), QUICK)
    temporal = Temporal(settings.temporal, storage.converter)
    api = await serve(settings, database, temporal)
    template = await active_template(api)
    await temporal.assure()
    await postgres_relay.cut()
    answer = await ok(await api.post(f"/templates/{template['id']}/execute", json={}), 202)
    assert answer["status"] == "CREATED"
    await postgres_relay.mend()
    await reconcile_once(database, temporal, timedelta(0))
    handle = temporal_client.get_workflow_handle(f"execution/{answer['executionId']}")
    assert (await handle.describe()).status is not None
    await storage.close()


async def test_many_starts_at_once_do_not_wait_for_each_other_s_connections(
    serve: Serve, settings: Settings, database_url: str
) -> None:
    narrow = DatabaseSettings(pool_size=1, connect_timeout=5)
    database = Database(database_url, narrow)
    storage = PayloadStorage(database_url, PayloadSettings(threshold=1024), narrow)
    api = await serve(settings, database, Temporal(settings.temporal, storage.converter))
    template = await active_template(api)

    async def start() -> str:
        body = {"context": {"text": _unique(4_000)}}
        return str((await ok(await api.post(f"/templates/{template['id']}/execute", json=body), 202))["status"])

    assert set(await asyncio.gather(*(start() for _ in range(12)))) == {"STARTED"}
    await storage.close()
    await database.close()
