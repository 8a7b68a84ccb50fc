"""Values in an S3-compatible store, against a real server on loopback."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import aioboto3
import pytest
from pydantic import SecretStr, ValidationError
from sqlmodel import col, select
from temporalio.common import RawValue

from app.db.payload_tables import PayloadBlob
from app.db.session import Database
from app.payloads.content import definition_payload
from app.payloads.errors import PayloadUnavailable
from app.payloads.storage import PayloadStorage
from app.processes import spawn
from app.settings import DatabaseSettings, PayloadSettings

BUCKET = "payloads"
PREFIX = "millrace/test/"


@pytest.fixture(scope="module")
async def s3(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PayloadSettings]:
    """Settings for a server that runs for the module, with an empty bucket."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    folder: Path = tmp_path_factory.mktemp("s3")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = spawn("s3", command, folder / "s3.log")
    settings = PayloadSettings(
        store="s3",
        bucket=BUCKET,
        endpoint=f"http://127.0.0.1:{port}",
        region="eu-central-1",
        prefix=PREFIX,
        access_key_id="tester",
        secret_access_key=SecretStr("not a secret"),
    )
    try:
        await _until_it_listens(port)
        async with _client(settings) as client:
            where = {"LocationConstraint": "eu-central-1"}
            await client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
        yield settings
    finally:
        await process.stop()


def _client(settings: PayloadSettings):  # type: ignore[no-untyped-def]
    session = aioboto3.Session("tester", "not a secret", region_name=settings.region)
    return session.client("s3", endpoint_url=settings.endpoint)


async def _until_it_listens(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise AssertionError("the S3 server did not start")


async def test_large_values_go_to_the_bucket_and_definitions_to_the_database(
    s3: PayloadSettings, database_url: str, database: Database
) -> None:
    storage = PayloadStorage(database_url, s3, DatabaseSettings())
    value = uuid4().hex * 5_000
    definition = definition_payload(json.dumps({"steps": [uuid4().hex]}))
    references = await storage.converter.encode([value, RawValue(definition), "small"])
    assert [len(reference.external_payloads) for reference in references] == [1, 1, 0]
    async with _client(s3) as client:
        listed = await client.list_objects_v2(Bucket=BUCKET)
    assert [item["Key"].startswith(PREFIX) for item in listed["Contents"]] == [True]
    async with database.transaction() as session:
        names = (await session.execute(select(col(PayloadBlob.sha256)))).scalars().all()
    assert names == [json.loads(references[1].data)["claimData"]["sha256"]]
    await storage.close()
    other = PayloadStorage(database_url, s3, DatabaseSettings())
    read, _, small = await other.converter.decode(references)
    assert (read, small) == (value, "small")
    await other.close()


async def test_what_was_stored_in_postgres_is_read_after_the_change_to_s3(
    s3: PayloadSettings, database_url: str
) -> None:
    value = uuid4().hex * 5_000
    before = PayloadStorage(database_url, PayloadSettings(), DatabaseSettings())
    references = await before.converter.encode([value])
    await before.close()
    after = PayloadStorage(database_url, s3, DatabaseSettings())
    assert await after.converter.decode(references) == [value]
    await after.close()


async def test_a_bucket_that_is_not_there_is_a_coded_failure(s3: PayloadSettings, database_url: str) -> None:
    storage = PayloadStorage(database_url, s3.model_copy(update={"bucket": "nowhere"}), DatabaseSettings())
    with pytest.raises(PayloadUnavailable) as raised:
        await storage.converter.encode(["x" * 100_000])
    assert raised.value.type == "PAYLOAD_STORE_UNAVAILABLE"
    assert "nowhere" in str(raised.value)
    assert "not a secret" not in str(raised.value)
    await storage.close()


def test_s3_without_a_bucket_is_refused() -> None:
    with pytest.raises(ValidationError, match="need a bucket"):
        PayloadSettings(store="s3")
