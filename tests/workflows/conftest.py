"""Executions on a database and a task queue of their own, with the workflow cache on and off."""

import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from temporalio.client import Client

from tests.short_histories import suggesting_early
from tests.workflows.counterpart import Counterpart, serving_counterpart
from tests.workflows.harness import Executions, executions_on
from tests.workflows.killing import Workers

SUGGESTED_AFTER = 60


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """What earlier tests have left is not gone through while a workflow task runs, which has 2 seconds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
async def short_histories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A client of a server that suggests to continue as new early."""
    async with suggesting_early(tmp_path_factory.mktemp("temporal"), SUGGESTED_AFTER) as address:
        yield await Client.connect(address)


@pytest.fixture
async def renewed(short_histories: Client, database_url: str) -> AsyncIterator[Executions]:
    """Executions with a worker on that server; every history is replayed in the end."""
    async with executions_on(short_histories, database_url) as subject:
        async with subject.worker():
            yield subject
        await subject.replay_all()


@pytest.fixture
async def executions(temporal_client: Client, database_url: str) -> AsyncIterator[Executions]:
    """Executions without a worker."""
    async with executions_on(temporal_client, database_url) as subject:
        yield subject


@pytest.fixture
async def cached(executions: Executions) -> AsyncIterator[Executions]:
    """Executions with a worker that keeps runs in memory, for trees of runs: without a cache the SDK lets a task of
    one run wait, until it times out, while another one's local activity is under way. And for steps that are steered
    while their rows are written: it forgets a run in the middle of a local activity, and judges an update beforehand
    of what has come before it.
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
