"""The embedded servers are the real ones, only what is missing is started, and nothing of them stays behind."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from pydantic import SecretStr
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from app.embedded import RETENTION, embedded_servers
from app.errors import AppError
from app.processes import OwnProcess, ProcessRecord, StartedProcesses, spawn
from app.settings import DatabaseSettings, Settings, TemporalSettings
from tests.conftest import MakeDatabase

HOLDER = """
import asyncio, sys
from app.embedded import embedded_servers
from app.settings import Settings

async def main():
    async with embedded_servers(Settings()) as servers:
        print("up", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mr-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _settings(home: Path, **changes: object) -> Settings:
    return Settings(home=home).model_copy(update=changes)


def _eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def _records(home: Path) -> list[ProcessRecord]:
    return [ProcessRecord(**entry) for entry in json.loads((home / "servers.json").read_text())]


async def test_both_servers_come_up_and_leave_nothing_behind(home: Path) -> None:
    async with embedded_servers(_settings(home)) as servers:
        assert servers.database.url is not None
        connection = await asyncpg.connect(
            servers.database.url.get_secret_value().replace("postgresql+asyncpg", "postgresql")
        )
        assert await connection.fetchval("SHOW wal_level") == "logical"
        await connection.close()
        client = await Client.connect(str(servers.temporal.address))
        described = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
        assert described.config.workflow_execution_retention_ttl.ToTimedelta() == RETENTION
        running = _records(home)
        assert sorted(record.name for record in running) == ["postgres", "temporal"]
        assert all(record.alive() for record in running)
    assert not any(record.alive() for record in running)
    assert not (home / "servers.json").exists()


async def test_data_survives_a_restart(home: Path) -> None:
    for attempt in range(2):
        async with embedded_servers(_settings(home)) as servers:
            assert servers.database.url is not None
            url = servers.database.url.get_secret_value().replace("postgresql+asyncpg", "postgresql")
            connection = await asyncpg.connect(url)
            if attempt == 0:
                await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
            assert await connection.fetchval("SELECT n FROM kept") == 42
            await connection.close()


async def test_a_configured_server_is_not_started(home: Path) -> None:
    settings = _settings(home, temporal=TemporalSettings(address="127.0.0.1:1"))
    async with embedded_servers(settings) as servers:
        assert servers.temporal.address == "127.0.0.1:1"
        assert [record.name for record in _records(home)] == ["postgres"]


async def test_nothing_is_started_when_everything_is_configured(home: Path) -> None:
    settings = _settings(
        home,
        database=DatabaseSettings(url=SecretStr("postgresql://nowhere.invalid/x")),
        temporal=TemporalSettings(address="127.0.0.1:1"),
    )
    async with embedded_servers(settings) as servers:
        assert servers is settings
        assert os.listdir(home) == []


async def test_a_path_too_long_for_a_socket_still_works(home: Path) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    settings = _settings(deep, temporal=TemporalSettings(address="127.0.0.1:1"))
    async with embedded_servers(settings) as servers:
        assert servers.database.url is not None
        url = servers.database.url.get_secret_value().replace("postgresql+asyncpg", "postgresql")
        connection = await asyncpg.connect(url)
        await connection.close()
        sockets = url.partition("host=")[2]
        assert os.path.exists(sockets)
        assert not sockets.startswith(str(home))
    assert not os.path.exists(sockets)


async def test_a_home_in_use_is_refused_with_the_pid_of_its_user(home: Path) -> None:
    settings = _settings(home, temporal=TemporalSettings(address="127.0.0.1:1"))
    async with embedded_servers(settings):
        with pytest.raises(AppError, match=str(os.getpid())) as refused:
            async with embedded_servers(settings):
                pass
        assert refused.value.code == "HOME_IN_USE"


async def test_a_server_that_cannot_start_is_reported_with_its_log(home: Path) -> None:
    data = home / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("9\n")
    settings = _settings(home, temporal=TemporalSettings(address="127.0.0.1:1"))
    with pytest.raises(AppError, match="postgres") as failed:
        async with embedded_servers(settings):
            pass
    assert failed.value.code == "EMBEDDED_POSTGRES_FAILED"
    assert "postgresql.conf" in failed.value.message


def _held_elsewhere(home: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MILLRACE_HOME": str(home)},
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n"
    return holder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_the_servers_die_with_a_killed_parent(home: Path) -> None:
    holder = _held_elsewhere(home)
    running = _records(home)
    holder.kill()
    holder.communicate()
    _eventually(lambda: not any(record.alive() for record in running))


async def test_what_a_killed_run_left_is_stopped_by_the_next(home: Path) -> None:
    orphan = spawn("orphan", ["/bin/sleep", "300"], home / "orphan.log", outlives_us=True)
    record = StartedProcesses(home / "servers.json")
    record.add(orphan)
    settings = _settings(home, temporal=TemporalSettings(address="127.0.0.1:1"))
    async with embedded_servers(settings):
        assert orphan.ended()


async def test_a_server_that_ends_by_itself_is_reported_with_its_log(home: Path) -> None:
    died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with embedded_servers(_settings(home), died=died):
        (temporal,) = [record for record in _records(home) if record.name == "temporal"]
        os.kill(temporal.pid, signal.SIGKILL)
        with pytest.raises(AppError) as told:
            await asyncio.wait_for(died, 10)
    assert told.value.code == "EMBEDDED_SERVER_ENDED"
    assert "temporal" in told.value.message


async def test_a_pid_that_was_used_again_is_left_alone(home: Path) -> None:
    stranger = spawn("stranger", ["/bin/sleep", "300"], home / "stranger.log")
    try:
        file = home / "servers.json"
        file.write_text(json.dumps([{"name": "postgres", "pid": stranger.pid, "started": time.time() - 3600}]))
        assert await StartedProcesses(file).stop_left_over() == []
        assert not stranger.ended()
    finally:
        await stranger.stop()


async def test_a_program_that_does_not_listen_is_killed(home: Path) -> None:
    deaf = spawn("deaf", ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], home / "deaf.log")
    _eventually(lambda: "ready" in deaf.last_words())
    await deaf.stop(patience=0.3)
    assert deaf.ended()


async def test_a_database_of_the_suite_comes_with_its_tables(make_database: MakeDatabase) -> None:
    connection = await asyncpg.connect((await make_database()).replace("postgresql+asyncpg", "postgresql"))
    assert await connection.fetchval("SELECT count(*) FROM workflow_template") == 0
    await connection.close()


async def test_the_server_of_the_suite_answers(temporal_client: Client) -> None:
    assert await temporal_client.service_client.check_health()


def test_a_record_names_one_process_and_no_other() -> None:
    mine = psutil.Process()
    assert ProcessRecord("me", mine.pid, mine.create_time()).alive()
    assert not ProcessRecord("me", mine.pid, mine.create_time() - 100).alive()


def test_a_process_knows_how_it_is_to_be_stopped(home: Path) -> None:
    process = spawn("sleeper", ["/bin/sleep", "300"], home / "s.log", stop_signal=signal.SIGINT)
    assert isinstance(process, OwnProcess)
    os.kill(process.pid, signal.SIGINT)
    _eventually(process.ended)
