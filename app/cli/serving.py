"""What a long-running command does: settings made whole, the API on a socket, everything stopped in order."""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

import worker
from app import event_loop
from app.cli.api_client import DEV_FILE, read_dev_file, with_own_database
from app.db.migrate import migrate
from app.db.session import Database
from app.embedded import embedded_servers
from app.errors import Invalid, Unavailable
from app.executions.following import Followers
from app.main import check_listen, create_app
from app.payloads.storage import PayloadStorage
from app.secrets import found_key
from app.settings import SecretsSettings, Settings
from app.temporal import Temporal

log = structlog.get_logger(__name__)

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _QuietServer(uvicorn.Server):
    """A server that leaves the process's signals to whoever runs it, and ends its event streams before it stops."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            # Whatever else is installed: with httptools a body is lost where HTTP/2 is offered (decision 0005).
            http="h11",
            log_config=None,
            timeout_graceful_shutdown=5,
            # Longer than callers and proxies usually keep a connection, so that none is closed while it is used again.
            timeout_keep_alive=75,
        )
        super().__init__(config)
        self._followers: Followers = app.state.followers

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Streams have no end of their own: without this each would hold up the stop until it is cut off."""
        await self._followers.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def run_until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Runs the work until it ends or SIGINT, SIGTERM or SIGHUP asks; then it is cancelled and tidies up.

    Raises what the work raised. Further signals while it tidies up change nothing.
    """
    event_loop.run(_until_stopped(work))


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    asked: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if not asked:
            asked.append(number)
            log.info("stop_requested", signal=number.name)
            task.cancel()

    for number in _STOPS:
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not asked:
            raise
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def serve_api(settings: Settings) -> None:
    """An API with a process of its own, until it is cancelled. Raises as `serve_api_with` does."""
    async with temporal_of(settings) as temporal:
        await serve_api_with(temporal, settings)


async def serve_api_with(temporal: Temporal, settings: Settings, listening: asyncio.Future[str] | None = None) -> None:
    """The API until it is cancelled; `listening` is given its URL once it answers.

    `temporal` is shared with a worker in the same process, if there is one.
    Raises `Invalid` REMOTE_NOT_ALLOWED, and `Unavailable` API_PORT_TAKEN.
    """
    check_listen(settings)
    url = database_url(settings)
    with _bound_socket(settings) as bound:
        database = Database(url, settings.database)
        app = create_app(settings, database, temporal)
        server = _QuietServer(app)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            await _started(server, serving)
            address = _address(bound)
            log.info("api_started", url=address)
            if listening is not None:
                listening.set_result(address)
            await asyncio.shield(serving)
        finally:
            server.should_exit = True
            await serving
            await database.close()
            log.info("api_stopped")


async def serve_worker(settings: Settings, *, with_api: bool = False) -> None:
    """A worker until it is cancelled, with the API in the same process if wanted."""
    if not with_api:
        await worker.serve(settings)
        return
    async with temporal_of(settings) as temporal, asyncio.TaskGroup() as group:
        group.create_task(worker.serve(settings, beside=temporal))
        group.create_task(serve_api_with(temporal, settings))


@contextlib.asynccontextmanager
async def temporal_of(settings: Settings) -> AsyncIterator[Temporal]:
    """The connection to Temporal, with the storage of large values. Raises `Invalid` NOT_CONFIGURED."""
    storage = PayloadStorage(database_url(settings), settings.payloads, settings.database)
    try:
        yield Temporal(settings.temporal, storage.converter)
    finally:
        await storage.close()


@contextlib.asynccontextmanager
async def everything(settings: Settings) -> AsyncIterator[dict[str, str | None]]:
    """Embedded servers, migrations, worker and API; the block gets the addresses, as `dev.json` holds them.

    The file is there while the block runs. Raises what a part raises when it cannot start or ends by itself.
    """
    check_listen(settings)
    # A module that is misspelt is said at once, and not after servers have been started and torn down again.
    worker.known_actions(settings)
    died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with embedded_servers(settings, died=died) as whole:
        await migrate(database_url(whole))
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        working = asyncio.Event()
        async with temporal_of(whole) as temporal, asyncio.TaskGroup() as group:
            parts = [
                group.create_task(worker.serve(whole, working, beside=temporal)),
                group.create_task(serve_api_with(temporal, whole, listening)),
                group.create_task(_until(died)),
            ]
            try:
                await working.wait()
                addresses = _addresses(whole, await listening)
                with _announced(settings.home, addresses):
                    yield addresses
            finally:
                for part in parts:
                    part.cancel()


async def _until(died: "asyncio.Future[None]") -> None:
    """Raises what ended an embedded server, when one ends by itself."""
    await died


def complete_settings(settings: Settings) -> Settings:
    """The settings, with what they leave open taken from a `millrace dev` that runs in the same home."""
    found = read_dev_file(settings.home)
    changes: dict[str, Any] = {}
    if settings.database.url is None and found.get("database"):
        changes["database"] = with_own_database(settings).database
        if settings.secrets.keys is None:
            changes["secrets"] = SecretsSettings(keys=found_key(settings.home))
    if settings.temporal.address is None and found.get("temporal"):
        reachable = {"address": found["temporal"], "ui_url": found.get("temporalUi")}
        changes["temporal"] = settings.temporal.model_copy(update=reachable)
    whole = settings.model_copy(update=changes)
    database_url(whole)
    if whole.temporal.address is None:
        raise Invalid(
            "NOT_CONFIGURED",
            "No Temporal server is configured: set MILLRACE_TEMPORAL__ADDRESS, or run `millrace dev`.",
        )
    return whole


def database_url(settings: Settings) -> str:
    """The configured database. Raises `Invalid` NOT_CONFIGURED when there is none."""
    if settings.database.url is None:
        raise Invalid("NOT_CONFIGURED", "No database is configured: set MILLRACE_DATABASE__URL, or run `millrace dev`.")
    return settings.database.url.get_secret_value()


def _addresses(settings: Settings, api: str) -> dict[str, str | None]:
    return {
        "api": api,
        "temporal": settings.temporal.address,
        "temporalUi": settings.temporal.ui_url,
        "database": database_url(settings),
    }


@contextlib.contextmanager
def _announced(home: Path, addresses: dict[str, str | None]) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    file = home / DEV_FILE
    fresh = file.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(addresses, indent=2) + "\n")
    fresh.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _bound_socket(settings: Settings) -> socket.socket:
    host, port = settings.api.host, settings.api.port
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Unavailable("API_PORT_TAKEN", f"The API cannot listen on {host}:{port}: {error.strerror}.") from error
    # asyncio sets this only on sockets that name their protocol; without it each answer waits some 40 ms.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    while not server.started:
        if serving.done():
            serving.result()
            raise Unavailable("API_NOT_STARTED", "The API ended while it was starting. The log says why.")
        await asyncio.sleep(0.01)
