"""`dev`, `api`, `worker`, `migrate`: the commands that run something, rather than ask for it."""

import asyncio
import json
from typing import Annotated

import structlog
import typer

from app.cli.output import AsJson, out, print_fields, print_json, print_line
from app.settings import Settings

log = structlog.get_logger(__name__)

Actions = Annotated[
    list[str] | None, typer.Option(metavar="MODULE", help="A Python module with actions; may be given again.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("dev")(dev)
    app.command("api")(api)
    app.command("worker")(worker)
    app.command("migrate")(migrate)


def dev(actions: Actions = None, as_json: AsJson = False) -> None:
    """Run everything on this machine until Ctrl-C: PostgreSQL, Temporal with its UI, worker and API."""
    from app.cli import serving

    settings = _with_actions(_settings(), actions)

    async def run() -> None:
        async with serving.everything(settings) as addresses:
            if as_json:
                print_line(json.dumps(addresses))
            else:
                print_fields(
                    {
                        "API": addresses["api"],
                        "API documentation": f"{addresses['api']}/docs",
                        "Temporal UI": addresses["temporalUi"],
                        "Temporal": addresses["temporal"],
                        "database": addresses["database"],
                    }
                )
                out.print("Everything runs. Ctrl-C stops it.", style="bold")
            await asyncio.Event().wait()

    serving.run_until_stopped(run())


def api() -> None:
    """Run the HTTP API."""
    from app.cli import serving

    serving.run_until_stopped(serving.serve_api(serving.complete_settings(_settings())))


def worker(
    with_api: Annotated[bool, typer.Option("--with-api", help="Run the HTTP API in the same process.")] = False,
    actions: Actions = None,
) -> None:
    """Run a worker."""
    from app.cli import serving

    settings = _with_actions(serving.complete_settings(_settings()), actions)
    serving.run_until_stopped(serving.serve_worker(settings, with_api=with_api))


def migrate(as_json: AsJson = False) -> None:
    """Bring the database up to date."""
    from app.cli import serving
    from app.db import migrate as migrations

    settings = _settings()
    if settings.database.url is None:
        settings = serving.complete_settings(settings)
    asyncio.run(migrations.migrate(serving.database_url(settings)))
    if as_json:
        print_json({"migrated": True})
    else:
        out.print("The database is up to date.")


def _with_actions(settings: Settings, modules: list[str] | None) -> Settings:
    more = settings.worker.model_copy(update={"actions": (*settings.worker.actions, *(modules or ()))})
    return settings.model_copy(update={"worker": more})


def _settings() -> Settings:
    from app.observability import configure_logging

    settings = Settings()
    configure_logging(settings.log)
    return settings
