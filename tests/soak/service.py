"""The whole of Millrace as processes of their own, each of which can be killed and started again."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from app.embedded import start_postgres, start_temporal
from app.processes import OwnProcess, spawn
from tests.documents import Document
from tests.workflows.outages import House, a_house

Json = dict[str, Any]


@dataclass
class Service:
    """Servers, a worker and an API; `client` speaks to the API."""

    house: House
    port: int
    client: httpx.AsyncClient
    api: OwnProcess | None = None

    async def start_api(self, **more: str) -> None:
        """Starts the API, and returns when it answers; `more` is added to its environment."""
        environment = {**self.house.workers.environment, "MILLRACE_API__PORT": str(self.port), **more}
        command = [sys.executable, "-m", "app.cli.main", "api"]
        self.api = spawn("api", command, self.house.home / "logs" / "api.log", environment=environment)
        self.house.started.append(self.api)
        await until(self._answers)

    def kill_api(self) -> None:
        """SIGKILL for the API."""
        if self.api is not None and not self.api.ended():
            os.kill(self.api.pid, signal.SIGKILL)

    def restart_worker(self) -> None:
        """SIGKILL for every worker, and another one in their place."""
        self.house.workers.kill()
        self.house.workers.start()

    async def stop_temporal(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Takes the Temporal server away."""
        os.kill(self.house.temporal.process.pid, number)
        await self.house.temporal.process.stop()

    async def start_temporal(self) -> None:
        """Brings it back, on its file and its port."""
        port = int(self.house.temporal.address.rpartition(":")[2])
        self.house.temporal = await start_temporal(self.house.home, self.house.started.append, port=port)

    async def stop_postgres(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Takes PostgreSQL away."""
        os.kill(self.house.postgres.process.pid, number)
        await self.house.postgres.process.stop()

    async def start_postgres(self) -> None:
        """Brings it back, on its folder."""
        self.house.postgres = await start_postgres(self.house.home, self.house.started.append)

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """What the API answers. Raises `AssertionError` for a refusal."""
        answer = await self.client.request(method, path, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def template(self, slug: str, document: Document) -> str:
        """A template with an active version; its slug."""
        version_id = await self.house.executions.template(slug, document)
        await self.execute("UPDATE workflow_template SET status = 'ACTIVE' WHERE active_version_id = $1", version_id)
        return slug

    async def execute(self, statement: str, *values: Any) -> None:
        """Runs a statement in Millrace's database."""
        async with self.house.executions.database.driver() as connection:
            await connection.execute(statement, *values)

    async def rows(self, statement: str, *values: Any) -> list[Json]:
        """What a query of Millrace's database gives."""
        async with self.house.executions.database.driver() as connection:
            return [dict(row) for row in await connection.fetch(statement, *values)]

    async def value(self, statement: str, *values: Any) -> Any:
        """The one value that a query gives."""
        async with self.house.executions.database.driver() as connection:
            return await connection.fetchval(statement, *values)

    async def _answers(self) -> bool:
        try:
            return (await self.client.get("/schedules")).is_success
        except httpx.TransportError:
            return False


@asynccontextmanager
async def a_service(answering_after: float = 0.0, **environment: str) -> AsyncIterator[Service]:
    """All of it, with its data on disk; `environment` is added to that of worker and API."""
    async with a_house(answering_after, **environment) as house:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=60) as client:
            service = Service(house, port, client)
            await service.start_api()
            yield service


async def until(condition: Callable[[], Awaitable[Any]], within: float = 60.0) -> Any:
    """What the condition gives as soon as it is true."""
    end = asyncio.get_running_loop().time() + within
    while not (found := await condition()):
        assert asyncio.get_running_loop().time() < end, "it has not come about in time"
        await asyncio.sleep(0.1)
    return found
