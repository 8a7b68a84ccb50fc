"""`millrace backfill`: start executions for many past events; what it is given, and what that says."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl
from app.cli.output import AsJson
from app.cli.steering import Key


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    NDJSON = "ndjson"


def _column(name: str, text: str) -> Any:
    return typer.Option(name, metavar="COLUMN", help=text)


File = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="CSV with a header, or NDJSON.", show_default=False)
]
Sql = Annotated[str | None, typer.Option("--sql", help="A query instead of a file; it should have an ORDER BY.")]
Connection = Annotated[str | None, typer.Option(help="Of the query: MILLRACE_CONNECTIONS__<NAME>.")]
Written = Annotated[Format | None, typer.Option("--format", help="By default what the file's name says.")]
Delimiter = Annotated[str | None, typer.Option(help="Of the CSV; by default what the header has most of.")]
Template = Annotated[str | None, typer.Option(help="Start this template: slug or id.")]
EntityType = Annotated[str | None, typer.Option(help="SERVICE_CATALOG or PRODUCT: start what entities are linked to.")]
EntityId = Annotated[str | None, _column("--entity-id", "The entity's id.")]
EventId = Annotated[str | None, _column("--event-id", "The event's own id: what was started for it is not again.")]
NameColumn = Annotated[str | None, _column("--name-column", "The executions' names.")]
Context = Annotated[list[str] | None, typer.Option(metavar="NAME=COLUMN", help="May be repeated; by default all.")]
Map = Annotated[str | None, typer.Option("--map", help="JSONata that gives the context from the row, __trigger__.")]
Time = Annotated[str | None, _column("--time", "When it happened, ISO 8601.")]
Since = Annotated[str | None, typer.Option(help="Only rows of this time or later.")]
Until = Annotated[str | None, typer.Option(help="Only rows before this time.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many rows at most.")]
Called = Annotated[str | None, typer.Option("--name", help="What the backfill is called.")]
Rate = Annotated[float | None, typer.Option(min=0.001, help="Starts a second.")]
Concurrency = Annotated[int | None, typer.Option(min=1, help="How many of its executions may be open at once.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check every row.")]
Detach = Annotated[bool, typer.Option("--detach", help="Do not wait once the rows are loaded.")]
Resume = Annotated[str | None, typer.Option(metavar="ID", help="Go on with a backfill where it was.")]
BadRows = Annotated[Path | None, typer.Option(help="Write the rows that were not started there, as CSV.")]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("backfill")(backfill)


def backfill(
    file: File = None,
    sql: Sql = None,
    connection: Connection = None,
    written: Written = None,
    delimiter: Delimiter = None,
    template: Template = None,
    entity_type: EntityType = None,
    entity_id: EntityId = None,
    event_id: EventId = None,
    name_column: NameColumn = None,
    context: Context = None,
    mapping: Map = None,
    time: Time = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    name: Called = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    dry_run: DryRun = False,
    detach: Detach = False,
    resume: Resume = None,
    bad_rows: BadRows = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Start executions for past events: a row each, from CSV, NDJSON or a query."""
    # Reading sources takes long to import, and every other command would wait for it.
    from app.cli import backfilling

    if resume is not None:
        backfilling.resume(api, resume, detach, bad_rows, as_json)
        return
    source = backfilling.source_of(file, sql, connection, written and written.value, delimiter).model_copy(
        update={
            "entity_id": entity_id,
            "event_id": event_id,
            "name": name_column,
            "context": _pairs(context or []),
            "map": mapping,
            "time": time,
            "since": since,
            "until": until,
            "limit": limit,
        }
    )
    target = {field: value for field, value in (("template", template), ("entityType", entity_type)) if value}
    _check_usage(target, entity_id)
    source.mapping()
    if dry_run:
        backfilling.try_out(api, source, target, bad_rows, as_json)
        return
    body = {"name": name or backfilling.name_of(source), "rate": rate, "concurrency": concurrency, **target}
    backfilling.start(api, source, body, key, detach, bad_rows, as_json)


def _check_usage(target: dict[str, str], entity_id: str | None) -> None:
    if not target:
        raise typer.BadParameter("say what is to be started: --template, or --entity-type and --entity-id")
    if "entityType" in target and entity_id is None:
        raise typer.BadParameter("--entity-type needs --entity-id")
    if entity_id is not None and "entityType" not in target:
        raise typer.BadParameter("--entity-id needs --entity-type")


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, _, column = text.partition("=")
        if not name.strip():
            raise typer.BadParameter(f"--context is NAME=COLUMN, or a column: {text!r}")
        pairs[name.strip()] = column.strip() or name.strip()
    return pairs
