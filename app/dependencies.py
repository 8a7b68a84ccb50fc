"""What routes are handed: the parts of the process, and a transaction for each request."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, Query, Request
from pydantic import BeforeValidator
from sqlalchemy.ext.asyncio import AsyncSession

from app.connections.opening import Connections
from app.db.session import Database
from app.executions.control import Caller
from app.executions.following import Followers
from app.executions.repair import Repair
from app.pollers import Pollers
from app.secrets import Vault
from app.settings import Settings
from app.temporal import Temporal


async def get_settings(request: Request) -> Settings:
    """The settings that the application was made with."""
    settings: Settings = request.app.state.settings
    return settings


async def get_database(request: Request) -> Database:
    """The database that the application was made with."""
    database: Database = request.app.state.database
    return database


async def get_temporal(request: Request) -> Temporal:
    """The connection to Temporal that the application was made with."""
    temporal: Temporal = request.app.state.temporal
    return temporal


async def get_repair(request: Request) -> Repair:
    """What makes a state out of which an ended run can go on."""
    repair: Repair = request.app.state.repair
    return repair


async def get_followers(request: Request) -> Followers:
    """Those who follow executions in this process."""
    followers: Followers = request.app.state.followers
    return followers


async def get_pollers(request: Request) -> Pollers:
    """What this process knows of the workers."""
    pollers: Pollers = request.app.state.pollers
    return pollers


async def get_vault(request: Request) -> Vault:
    """What encrypts and decrypts secrets in this process."""
    vault: Vault = request.app.state.vault
    return vault


async def get_connections(request: Request) -> Connections:
    """The databases of users that are configured."""
    connections: Connections = request.app.state.connections
    return connections


async def get_session(database: Annotated[Database, Depends(get_database)]) -> AsyncIterator[AsyncSession]:
    """A session whose transaction is committed before the response is sent."""
    async with database.transaction() as session:
        yield session


SettingsPart = Annotated[Settings, Depends(get_settings)]
DatabasePart = Annotated[Database, Depends(get_database)]
TemporalPart = Annotated[Temporal, Depends(get_temporal)]
RepairPart = Annotated[Repair, Depends(get_repair)]
PollersPart = Annotated[Pollers, Depends(get_pollers)]
VaultPart = Annotated[Vault, Depends(get_vault)]
ConnectionsPart = Annotated[Connections, Depends(get_connections)]
FollowersPart = Annotated[Followers, Depends(get_followers)]
# Scope "function": with the default the commit would come after the response, and could fail unseen.
SessionPart = Annotated[AsyncSession, Depends(get_session, scope="function")]


def _as_utf_8(value: str | None) -> str | None:
    # HTTP leaves the encoding of a header open, and Starlette takes Latin-1.
    try:
        return value and value.encode("latin-1").decode()
    except UnicodeError:
        return value


Actor = Annotated[
    str | None,
    BeforeValidator(_as_utf_8),
    Header(alias="X-Millrace-Actor", max_length=200, description="who does this, for the record"),
]
IdempotencyKey = Annotated[
    str | None,
    BeforeValidator(_as_utf_8),
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=400,
        description="a repetition with the same key changes nothing",
    ),
]


async def get_caller(actor: Actor = None, idempotency_key: IdempotencyKey = None) -> Caller:
    """Who asks, and the key that makes his repetitions one."""
    return Caller(actor, idempotency_key)


CallerPart = Annotated[Caller, Depends(get_caller)]
Cursor = Annotated[str | None, Query(max_length=500, description="`nextCursor` of the page before")]
Limit = Annotated[int, Query(ge=1, le=100, description="how many items at most")]
