"""`/health`: whether this process lives, and whether it can do its work."""

import asyncio
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter, Response
from sqlalchemy.exc import DBAPIError
from temporalio.service import RPCError

from app.dependencies import DatabasePart, PollersPart, TemporalPart
from app.errors import AppError
from app.pollers import Pollers
from app.wire import Given

LONGEST = 3.0

router = APIRouter(prefix="/health", tags=["health"])


class Alive(Given):
    """The process answers."""

    status: Literal["UP"] = "UP"


class PartHealth(Given):
    """One of the parts this needs; `code` says what is wrong."""

    status: Literal["UP", "DOWN"]
    code: str | None = None


class Readiness(Given):
    """UP when every part is. `worker` tells whether one polls, null when nobody can say; executions wait for one, but
    are taken without it.
    """

    status: Literal["UP", "DOWN"]
    parts: dict[str, PartHealth]
    worker: bool | None


@router.get("/live", summary="Does the process live?", name="live")
async def live() -> Alive:
    """Always 200."""
    return Alive()


@router.get(
    "/ready",
    summary="Can it do its work?",
    name="ready",
    responses={503: {"model": Readiness, "description": "a part is down"}},
)
async def ready(response: Response, database: DatabasePart, temporal: TemporalPart, pollers: PollersPart) -> Readiness:
    """Asks PostgreSQL and Temporal; 503 names the part that is down. That no worker polls is told, and is no 503."""
    postgres, temporal_health, worker = await asyncio.gather(
        _health(database.ping(), "DATABASE_UNAVAILABLE"),
        _health(temporal.ping(), "TEMPORAL_UNAVAILABLE"),
        _worker(pollers),
    )
    up = postgres.status == temporal_health.status == "UP"
    response.status_code = 200 if up else 503
    return Readiness(
        status="UP" if up else "DOWN", parts={"database": postgres, "temporal": temporal_health}, worker=worker
    )


async def _worker(pollers: Pollers) -> bool | None:
    try:
        return await asyncio.wait_for(pollers.polled(), LONGEST)
    except (AppError, RPCError, TimeoutError):
        return None


async def _health(asking: Awaitable[None], code: str) -> PartHealth:
    try:
        await asyncio.wait_for(asking, LONGEST)
    except (AppError, DBAPIError, TimeoutError):
        return PartHealth(status="DOWN", code=code)
    return PartHealth(status="UP")
