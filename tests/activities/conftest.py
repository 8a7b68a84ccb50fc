"""A real HTTP server on loopback, and actions called the way a worker calls them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from temporalio.testing import ActivityEnvironment

from activities.registry import action_activities
from app.contracts import ActionCall
from engine.steps import Retry
from millrace.actions import Action

CallAction = Callable[..., Awaitable[Any]]
CallDescribed = Callable[..., Awaitable[Any]]


async def echo(request: Request) -> Response:
    """What came in."""
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "query": dict(request.query_params),
            "headers": dict(request.headers),
            "body": body.decode(),
        }
    )


async def status(request: Request) -> Response:
    """The status that was asked for."""
    return PlainTextResponse("as you wish", int(request.path_params["status"]))


async def large(request: Request) -> Response:
    """Three mebibytes."""
    return PlainTextResponse("x" * 3 * 1024 * 1024)


async def slow(request: Request) -> Response:
    """An answer that comes late."""
    await asyncio.sleep(5)
    return PlainTextResponse("late")


async def broken(request: Request) -> Response:
    """JSON that is none."""
    return Response(b"{", media_type="application/json")


async def moved(request: Request) -> Response:
    """Elsewhere."""
    return RedirectResponse("http://127.0.0.1:1/")


async def nan(request: Request) -> Response:
    """A number that is none."""
    return Response(b'{"n": NaN}', media_type="application/json")


async def infinite(request: Request) -> Response:
    """A number beyond all numbers."""
    return Response(b'{"n": 1e999}', media_type="application/json")


ROUTES = [
    Route("/nan", nan),
    Route("/infinite", infinite),
    Route("/echo", echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    Route("/status/{status:int}", status, methods=["GET", "POST"]),
    Route("/large", large),
    Route("/slow", slow),
    Route("/broken", broken),
    Route("/moved", moved),
]


@pytest.fixture(scope="session")
async def http_server() -> AsyncIterator[str]:
    """The base URL of a server that answers in all the ways that matter."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=ROUTES), log_level="warning", ws="none"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    server.force_exit = True
    await serving


@pytest.fixture
def call_action() -> CallAction:
    """Runs an action as its activity, with its parameters as JSON."""

    async def call(entry: Action, parameters: Any, **retry: Any) -> Any:
        return await _call(ActivityEnvironment(), entry, parameters, **retry)

    return call


@pytest.fixture
def call_described() -> CallDescribed:
    """The same in an environment of the test's own."""
    return _call


async def _call(environment: ActivityEnvironment, entry: Action, parameters: Any, **retry: Any) -> Any:
    described = ActionCall(
        idempotency_key="run/step#1",
        execution_id=UUID(int=1),
        template="template",
        step_id="step",
        retry=Retry.model_validate(retry),
    )
    (activity,) = action_activities([entry])
    return await environment.run(activity, parameters, described)
