"""`/health`: whether this process lives, and whether it can do its work."""

import asyncio
from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter, Response
from sqlalchemy.exc import DBAPIError

from app.dependencies import DatabasePart, TemporalPart
from app.errors import AppError
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
    """UP when every part is."""

    status: Literal["UP", "DOWN"]
    parts: dict[str, PartHealth]


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
async def ready(response: Response, database: DatabasePart, temporal: TemporalPart) -> Readiness:
    """Asks PostgreSQL and Temporal; 503 names the part that is down."""
    postgres, temporal_health = await asyncio.gather(
        _health(database.ping(), "DATABASE_UNAVAILABLE"), _health(temporal.ping(), "TEMPORAL_UNAVAILABLE")
    )
    up = postgres.status == temporal_health.status == "UP"
    response.status_code = 200 if up else 503
    return Readiness(status="UP" if up else "DOWN", parts={"database": postgres, "temporal": temporal_health})


async def _health(asking: Awaitable[None], code: str) -> PartHealth:
    try:
        await asyncio.wait_for(asking, LONGEST)
    except (AppError, DBAPIError, TimeoutError):
        return PartHealth(status="DOWN", code=code)
    return PartHealth(status="UP")
