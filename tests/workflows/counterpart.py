"""The other side of HTTP actions: a server that counts, answers, keeps waiting or refuses as it is told."""

import asyncio
import socket
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.documents import action


class Counterpart:
    """An HTTP server that counts calls by path and keeps some waiting until it is told.

    A path with `wait` in it is answered when the gate is open; one in `refused` is answered 422. `order` is every
    call, by path, `bodies` what came with the last one, and `times` when calls came, by key, in seconds since the
    epoch. Each is answered `after` so many seconds.
    """

    def __init__(self, after: float = 0.0) -> None:
        self._after = after
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.calls: Counter[str] = Counter()
        self.keys: defaultdict[str, set[str]] = defaultdict(set)
        self.order: list[str] = []
        self.bodies: dict[str, Any] = {}
        self.refused: set[str] = set()
        self.gate = asyncio.Event()
        self.url = ""

    async def answer(self, request: Request) -> JSONResponse:
        """Counts, waits, answers."""
        path = request.url.path
        self.calls[path] += 1
        self.keys[path].add(request.headers["idempotency-key"])
        self.order.append(path)
        self.times[request.headers["idempotency-key"]].append(time.time())
        self.bodies[path] = await request.body()
        await asyncio.sleep(self._after)
        if "wait" in path:
            await self.gate.wait()
        return JSONResponse({"path": path}, 422 if path in self.refused else 200)

    async def called(self, path: str, times: int = 1) -> None:
        """Returns when somebody has called the path so many times."""
        for _ in range(600):
            if self.calls[path] >= times:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"nobody called {path}: {self.calls}")


@asynccontextmanager
async def serving_counterpart(after: float = 0.0) -> AsyncIterator[Counterpart]:
    """The server, on a free port, for the block."""
    subject = Counterpart(after)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/{path:path}", subject.answer, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    subject.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield subject
    finally:
        subject.gate.set()
        server.should_exit = True
        server.force_exit = True
        await serving


def call(step_id: str, url: str, path: str | None = None, **fields: Any) -> dict[str, Any]:
    """A step that calls the counterpart; an attempt that gets no answer is detected after two seconds."""
    return action(step_id, **{**calling(url, path or step_id), **fields})


def calling(url: str, path: str) -> dict[str, Any]:
    """What makes an action, or a compensator, call the counterpart."""
    return {
        "actionKey": "http.request",
        "parameters": {"method": "POST", "url": f"{url}/{path}"},
        "timeout": 2,
        "retry": {"maxAttempts": 10, "initialInterval": 0.2},
    }
