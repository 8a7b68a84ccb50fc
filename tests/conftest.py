"""The real servers that tests run against: started once a session, in a folder of their own."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import hypothesis
import pytest
from sqlalchemy.engine import make_url
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from app.db.migrate import migrate
from app.embedded import EmbeddedPostgres, EmbeddedTemporal, start_postgres, start_temporal
from app.processes import OwnProcess
from app.settings import TemporalSettings
from app.temporal import connect
from tests.wire_cutter import Relay, relayed

MakeDatabase = Callable[[], Awaitable[str]]

_MIGRATED = "migrated"


# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("millrace", deadline=None)
hypothesis.settings.load_profile("millrace")


@pytest.fixture(scope="session")
def short_home() -> Iterator[Path]:
    """A folder for servers whose path leaves room for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
async def postgres(short_home: Path) -> AsyncIterator[EmbeddedPostgres]:
    """The session's PostgreSQL."""
    started: list[OwnProcess] = []
    try:
        yield await start_postgres(short_home, started.append, throwaway=True)
    finally:
        for process in started:
            await process.stop()


@pytest.fixture(scope="session")
async def temporal_server(short_home: Path) -> AsyncIterator[EmbeddedTemporal]:
    """The session's Temporal server, in memory, with Millrace's search attributes registered."""
    started: list[OwnProcess] = []
    try:
        yield await start_temporal(short_home, started.append, throwaway=True)
    finally:
        for process in started:
            await process.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres: EmbeddedPostgres) -> str:
    """The URL of an empty database that the whole session shares."""
    return postgres.url()


@pytest.fixture(scope="session")
async def make_empty_database(postgres: EmbeddedPostgres) -> MakeDatabase:
    """Makes a new database without tables, and gives its URL."""
    return lambda: _create(postgres, "template0")


@pytest.fixture(scope="session")
async def make_database(postgres: EmbeddedPostgres) -> MakeDatabase:
    """Makes a new database with every migration applied, and gives its URL; a matter of milliseconds."""
    await migrate(await _create(postgres, "template0", _MIGRATED))
    return lambda: _create(postgres, _MIGRATED)


@pytest.fixture(scope="module")
async def database_url(make_database: MakeDatabase) -> str:
    """The URL of a migrated database that the module has to itself."""
    return await make_database()


@pytest.fixture
async def postgres_relay(postgres: EmbeddedPostgres) -> AsyncIterator[Relay]:
    """A wire to PostgreSQL that can be cut and mended."""
    async with relayed(str(postgres.socket_folder / ".s.PGSQL.5432")) as relay:
        yield relay


@pytest.fixture
def relayed_database_url(postgres_relay: Relay, database_url: str) -> str:
    """The module's database over that wire."""
    name = make_url(database_url).database
    return f"postgresql+asyncpg://postgres@{postgres_relay.address}/{name}?ssl=disable"


@pytest.fixture(scope="session")
def temporal_address(temporal_server: EmbeddedTemporal) -> str:
    """Where the session's Temporal server listens."""
    return temporal_server.address


@pytest.fixture(scope="session")
async def temporal_client(temporal_address: str) -> Client:
    """A client that reads and writes small values only; `with_storage` gives one that knows a database."""
    return await connect(TemporalSettings(address=temporal_address), pydantic_data_converter)


async def _create(postgres: EmbeddedPostgres, template: str, name: str | None = None) -> str:
    name = name or f"t{uuid4().hex}"
    connection = await asyncpg.connect(host=str(postgres.socket_folder), user="postgres", database="postgres")
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
    finally:
        await connection.close()
    return postgres.url(name)
