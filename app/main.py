"""The HTTP API as an application: its parts, its routes, and what lives as long as it does."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from app import health
from app.db.session import Database
from app.errors import Invalid
from app.executions import reconciler
from app.executions.routes import router as executions
from app.intake import Intake
from app.links.routes import router as links
from app.problem_details import ProblemDetails, answer_with_problems, problem_responses
from app.registry.routes import router as registry
from app.settings import Settings
from app.templates.routes import router as templates
from app.temporal import Temporal
from app.triggers.routes import router as triggers
from app.versions.routes import router as versions

DESCRIPTION = "Business processes as JSON definitions, run as Temporal workflows."
PREFIX = "/api/v1"


def create_app(settings: Settings, database: Database, temporal: Temporal) -> FastAPI:
    """The API on the given parts. It closes none of them: whoever made them does.

    The application starts also when PostgreSQL or Temporal is down, and says so request by request.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        reconciling = asyncio.create_task(
            reconciler.reconcile_forever(database, temporal, settings.reconciler)
        )
        yield
        reconciling.cancel()
        with suppress(asyncio.CancelledError):
            await reconciling

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
    answer_with_problems(app)
    app.add_middleware(Intake, max_body_bytes=settings.api.max_body_bytes)
    api = APIRouter(prefix=PREFIX)
    for router in (templates, versions, links, triggers, executions, registry):
        api.include_router(router)
    app.include_router(api)
    app.include_router(health.router)
    _describe_problems(app)
    return app


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
