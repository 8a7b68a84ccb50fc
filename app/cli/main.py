"""The command `millrace`: its groups, and the one place where what went wrong becomes an exit code."""

import logging
import sys
from collections.abc import Sequence

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli import (
    actions,
    backfill,
    backfills,
    bulk,
    changes,
    definitions,
    demo,
    events,
    executions,
    leftovers,
    purging,
    reconciling,
    schedules,
    servers,
    starts,
    steering,
    subscribing,
    templates,
    webhooks,
)
from app.cli.output import print_refusal
from app.errors import AppError, Invalid

app = typer.Typer(
    name="millrace",
    help="Business processes as JSON definitions, run as Temporal workflows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

servers.register(app)
demo.register(app)
definitions.register(app)
starts.register(app)
actions.register(app)
backfill.register(app)
purging.register(app)
reconciling.register(app)
steering.register(executions.app)
bulk.register(executions.app)
app.add_typer(executions.app, name="executions")
app.add_typer(templates.app, name="templates")
app.add_typer(definitions.versions, name="versions")
app.add_typer(backfills.app, name="backfills")
app.add_typer(events.events, name="events")
app.add_typer(leftovers.dead_letters, name="dead-letters")
app.add_typer(leftovers.incidents, name="incidents")
app.add_typer(subscribing.triggers, name="triggers")
app.add_typer(subscribing.subscriptions, name="subscriptions")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(changes.changes, name="changes")
app.add_typer(schedules.app, name="schedules")


def run(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and leaves with 0 (done), 1 (refused or failed; why, on standard error) or 2 (usage)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(args=words, prog_name="millrace")
    except AppError as error:
        print_refusal(error, "--json" in words)
    except ValidationError as error:
        print_refusal(_bad_settings(error), "--json" in words)
    except SettingsError as error:
        print_refusal(Invalid("SETTINGS_INVALID", f"The configuration is not valid: {error}."), "--json" in words)
    except KeyboardInterrupt:
        sys.exit(130)
    # The edge: a mistake of ours is logged with its trace, and the user is told that it is ours.
    except Exception:
        logging.getLogger(__name__).exception("command_failed")
        print_refusal(AppError("INTERNAL", 500, "Something went wrong in Millrace. The log above says what."), False)
    sys.exit(1)


def _bad_settings(error: ValidationError) -> Invalid:
    problems = [
        {
            "path": "__".join(["MILLRACE", *map(str, found["loc"])]).upper().replace("__", "_", 1),
            "message": found["msg"],
        }
        for found in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return Invalid("SETTINGS_INVALID", "The configuration is not valid.", problems)


if __name__ == "__main__":
    run()
