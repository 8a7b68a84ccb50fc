"""The HTTP API as an application: its parts, its routes, and what lives as long as it does."""

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import health
from app.addresses import refuse_wrong_parameters
from app.audit.routes import router as audit
from app.backfills.routes import router as backfills
from app.backfills.upload_routes import UPLOAD
from app.backfills.upload_routes import router as uploads
from app.background import background_work
from app.changes.reader import Reader
from app.changes.routes import router as changes
from app.connections.opening import Connections
from app.db.session import Database
from app.dead_letters.routes import router as dead_letters
from app.errors import Invalid
from app.executions.bulk_routes import router as bulk
from app.executions.control_routes import router as control
from app.executions.following import Followers
from app.executions.repair import EngineRepair, Repair
from app.executions.routes import router as executions
from app.inbox.routes import router as inbox
from app.incidents.routes import router as incidents
from app.intake import Intake
from app.links.routes import router as links
from app.pollers import Pollers
from app.problem_details import (
    ProblemDetails,
    answer_with_problems,
    internal_error,
    problem_response,
    problem_responses,
)
from app.registry.options import OptionReader
from app.registry.routes import router as registry
from app.registry.trigger_routes import router as registered_triggers
from app.schedules.routes import router as schedules
from app.secrets import Vault
from app.settings import Settings
from app.subscriptions.routes import router as subscriptions
from app.templates.routes import router as templates
from app.temporal import Temporal
from app.triggers.routes import router as triggers
from app.versions.routes import router as versions
from app.webhooks.hook_routes import router as hooks
from app.webhooks.paths import HOOKS_ADDRESS
from app.webhooks.routes import router as webhooks

log = structlog.get_logger(__name__)

DESCRIPTION = "Business processes as JSON definitions, run as Temporal workflows."
PREFIX = "/api/v1"
# A request is compared with one route after the other, so what is asked most comes first. The bulk forms come before
# executions: "bulk" would otherwise be taken for an execution's id.
ROUTERS = (
    triggers,
    templates,
    versions,
    links,
    inbox,
    schedules,
    bulk,
    executions,
    control,
    incidents,
    dead_letters,
    audit,
    registry,
    uploads,
    backfills,
    registered_triggers,
    subscriptions,
    webhooks,
    changes,
)


def create_app(settings: Settings, database: Database, temporal: Temporal, repair: Repair | None = None) -> FastAPI:
    """The API on the given parts. It closes none of them: whoever made them does.

    The application starts also when PostgreSQL or Temporal is down, and says so request by request.
    """

    followers = Followers(database, temporal)
    pollers = Pollers(temporal)
    connections = Connections(database.url, settings.connections)
    reader = Reader(database, connections, settings.changes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with background_work(database, temporal, settings, pollers, reader):
            yield
            await followers.close()

    app = FastAPI(
        title="Millrace",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        responses=problem_responses(400, 413, 500),
    )
    app.state.settings = settings
    app.state.database = database
    app.state.temporal = temporal
    app.state.repair = repair or EngineRepair()
    app.state.followers = followers
    app.state.pollers = pollers
    app.state.options = OptionReader(connections)
    app.state.vault = Vault(settings.secrets)
    app.state.connections = connections
    answer_with_problems(app)
    streamed = frozenset({f"{PREFIX}{UPLOAD}"})
    app.add_middleware(Intake, settings=settings.api, left_alone=f"{HOOKS_ADDRESS}/", streamed=streamed)
    app.add_middleware(BugsAnswered)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX, dependencies=[Depends(refuse_wrong_parameters)])
    app.include_router(hooks)
    app.include_router(health.router)
    _describe_problems(app)
    return app


class BugsAnswered:
    """The outermost layer: whatever nobody knew by then is a bug, and the client is told that and no more."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def noting_answer(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, noting_answer)
        except Exception:
            if scope["type"] != "http":
                raise
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            if not answered:
                await problem_response(internal_error())(scope, receive, send)


def check_listen(settings: Settings) -> None:
    """Raises `Invalid` for a host beyond loopback unless the settings allow it: nobody is authenticated."""
    host = settings.api.host
    if settings.api.allow_remote or host == "localhost":
        return
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise Invalid(
        "REMOTE_NOT_ALLOWED",
        f"The API has no authentication and would be reachable from elsewhere on {host}. "
        "Set MILLRACE_API__ALLOW_REMOTE=true to listen there all the same.",
    )


def _operation_id(route: APIRoute) -> str:
    return route.name


def _describe_problems(app: FastAPI) -> None:
    """Adds the schema of problem details, which no route names as its model, to OpenAPI."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = describe()
            schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(schema.pop("$defs", {}))
            schemas[ProblemDetails.__name__] = schema
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]
