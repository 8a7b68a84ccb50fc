"""Executions on a database and a task queue of their own, with the workflow cache on and off."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from app.db.session import Database
from tests.workflows.counterpart import Counterpart, serving_counterpart
from tests.workflows.harness import Executions
from tests.workflows.killing import Workers


@pytest.fixture(scope="session")
async def client(temporal_address: str) -> Client:
    """A client with the project's data converter."""
    return await Client.connect(temporal_address, data_converter=pydantic_data_converter)


@pytest.fixture
async def executions(client: Client, database_url: str) -> AsyncIterator[Executions]:
    """Executions without a worker."""
    database = Database(database_url)
    yield Executions(client, database, f"q-{uuid4().hex}")
    await database.close()


@pytest.fixture
async def cached(executions: Executions) -> AsyncIterator[Executions]:
    """Executions with a worker that keeps runs in memory, for trees of runs: without a cache the SDK lets a task of
    one run wait, until it times out, while another one's local activity is under way.
    """
    async with executions.worker():
        yield executions
    await executions.replay_all()


@pytest.fixture(params=[100, 0], ids=["cached", "uncached"])
async def running(executions: Executions, request: pytest.FixtureRequest) -> AsyncIterator[Executions]:
    """Executions with a worker; uncached, every workflow task replays the whole history."""
    async with executions.worker(cached=request.param):
        yield executions
    await executions.replay_all()


@pytest.fixture
async def counterpart() -> AsyncIterator[Counterpart]:
    """The other side of HTTP actions."""
    async with serving_counterpart() as subject:
        yield subject


@pytest.fixture
async def workers(
    executions: Executions, temporal_address: str, database_url: str, tmp_path: Path
) -> AsyncIterator[Workers]:
    """Worker processes, ended with the test."""
    subject = Workers(executions.task_queue, temporal_address, database_url, tmp_path)
    yield subject
    await subject.stop()
