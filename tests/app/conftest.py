"""The API as a real HTTP server on real parts; each test module has a database and a task queue of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import httpx
import pytest
import uvicorn
from cryptography.fernet import Fernet
from fastapi import FastAPI
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.converter import DataConverter

from app.db.session import Database
from app.executions.repair import Repair
from app.main import create_app
from app.payloads.storage import PayloadStorage
from app.settings import ApiSettings, ChangeSettings, ReconcilerSettings, SecretsSettings, Settings, TemporalSettings
from app.temporal import Temporal
from tests.app.scenes import Json, active_template
from tests.app.shop import ORDERS, Shop, opened_shop, shop_settings
from tests.app.tiny_workflow import running_worker
from tests.conftest import MakeDatabase
from worker import build_worker

Serve = Callable[[Settings, Database, Temporal], Awaitable[httpx.AsyncClient]]


@pytest.fixture(scope="module")
def task_queue() -> str:
    return f"tests-{uuid4()}"


@pytest.fixture(scope="module")
def settings(temporal_address: str, task_queue: str) -> Settings:
    return Settings(
        temporal=TemporalSettings(
            address=temporal_address, task_queue=task_queue, ui_url="http://ui.example", connect_timeout=2
        ),
        api=ApiSettings(max_body_bytes=200_000, max_context_bytes=50_000),
        # Tests call the reconciler and the reader of row changes themselves.
        reconciler=ReconcilerSettings(interval=3600),
        secrets=SecretsSettings(keys=SecretStr(Fernet.generate_key().decode())),
        changes=ChangeSettings(interval=3600),
    )


@pytest.fixture(scope="module")
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture(scope="module")
async def converter(database_url: str, settings: Settings) -> AsyncIterator[DataConverter]:
    """The data converter of the module's database."""
    storage = PayloadStorage(database_url, settings.payloads, settings.database)
    yield storage.converter
    await storage.close()


@pytest.fixture(scope="module")
async def temporal(settings: Settings, converter: DataConverter) -> Temporal:
    return Temporal(settings.temporal, converter)


@pytest.fixture(scope="module")
def repair() -> Repair | None:
    """What mends states of runs that are taken up again; the engine does unless a module has another one."""
    return None


@pytest.fixture(scope="module")
async def serve(database: Database, converter: DataConverter, repair: Repair | None) -> AsyncIterator[Serve]:
    """Serves an application on a free port of loopback until the module ends.

    It asks for what applications stand on, so that it ends before that does: their background tasks would open
    connections of a database that has been closed, and nobody would close those.
    """
    async with AsyncExitStack() as stack:

        async def start(settings: Settings, database: Database, temporal: Temporal) -> httpx.AsyncClient:
            return await stack.enter_async_context(served(create_app(settings, database, temporal, repair)))

        yield start


@pytest.fixture(scope="module")
async def api(serve: Serve, settings: Settings, database: Database, temporal: Temporal) -> httpx.AsyncClient:
    return await serve(settings, database, temporal)


@pytest.fixture(scope="module")
async def shop_of_module(
    make_empty_database: MakeDatabase, settings: Settings, database: Database, temporal: Temporal
) -> AsyncIterator[Shop]:
    url = await make_empty_database()
    ours = shop_settings(settings, url)
    async with serving(ours, database, temporal) as api, opened_shop(url, api, database, ours) as shop:
        yield shop


@pytest.fixture
async def shop(shop_of_module: Shop) -> AsyncIterator[Shop]:
    """A user's database with the table `orders`, which nobody watches yet."""
    await shop_of_module.user.execute(ORDERS)
    yield shop_of_module
    await shop_of_module.clear()


@pytest.fixture(scope="module")
async def worker_client(temporal_address: str, converter: DataConverter) -> Client:
    return await Client.connect(temporal_address, data_converter=converter)


@pytest.fixture(scope="module")
async def stand_in(temporal_address: str, task_queue: str, converter: DataConverter) -> AsyncIterator[None]:
    """A worker for the module that has the stand-in for the workflow, which does what its context says."""
    async with running_worker(temporal_address, task_queue, converter):
        yield


@pytest.fixture(scope="module")
async def template(api: httpx.AsyncClient) -> Json:
    """A template that can be started, the same for the module."""
    return await active_template(api, name="Tiny")


@pytest.fixture
async def working(worker_client: Client, database: Database, settings: Settings) -> AsyncIterator[None]:
    """A worker for as long as the test."""
    async with build_worker(worker_client, database, settings, ()):
        yield


@asynccontextmanager
async def serving(settings: Settings, database: Database, temporal: Temporal) -> AsyncIterator[httpx.AsyncClient]:
    async with served(create_app(settings, database, temporal)) as client:
        yield client


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """An application on a free port of loopback."""
    config = uvicorn.Config(
        app,
        port=0,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30) as client:
        yield client
    server.should_exit = True
    await running
