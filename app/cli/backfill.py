"""`millrace backfill`: start executions for many past events, and watch them being started."""

import csv
import json
from collections.abc import Generator, Iterable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from app.backfills.mapping import Loadable
from app.backfills.rows import BadRow
from app.backfills.sources import Source, check_unchanged, fingerprint, read_source
from app.cli.api_client import Api, ApiUrl, acting, open_api, segment, with_own_database
from app.cli.backfill_loading import Checked, as_sent, check, load, patiently
from app.cli.backfill_progress import follow
from app.cli.output import AsJson, err, print_fields, print_json, print_table
from app.cli.steering import Key
from app.errors import Invalid
from app.settings import OWN_CONNECTION, Settings

SHOWN_PROBLEMS = 10


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
    if resume is not None:
        with open_api(api) as calls:
            _go_on(calls, resume, detach, bad_rows, as_json)
        return
    source = _source(file, sql, connection, written, delimiter).model_copy(
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
    _check_usage(target, source)
    source.mapping()
    body = {"name": name or _name_of(source), "rate": rate, "concurrency": concurrency, **target}
    with open_api(api) as calls:
        if dry_run:
            _try_out(calls, source, target, bad_rows, as_json)
            return
        # A source that cannot be read at all leaves no backfill behind.
        with closing(_rows(source)) as rows:
            next(rows, None)
        kept = source.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        made = calls.post("/backfills", {**body, "source": kept}, headers=acting(key))
        _go_on(calls, made["id"], detach, bad_rows, as_json)


def _go_on(calls: Api, backfill_id: str, detach: bool, bad_rows: Path | None, as_json: bool) -> None:
    """Loads what is not loaded yet, starts it, and follows it to its end."""
    path = f"/backfills/{segment(backfill_id)}"
    found = calls.get(path)
    try:
        if found["status"] == "LOADING":
            source = Source.model_validate(found["source"])
            check_unchanged(source)
            if source.file is not None or source.query is not None:
                load(calls, path, _rows(source), found["lastNumber"] or 0, found["name"])
            found = patiently(lambda: calls.post(f"{path}/start", headers=acting()))
        if not detach:
            found = follow(calls, path, found, quiet=as_json)
    except KeyboardInterrupt:
        _say_how_to_go_on(backfill_id, found["status"])
        raise typer.Exit(130) from None
    if bad_rows is not None:
        statuses = ["INVALID", "REFUSED"]
        _write_bad_rows(bad_rows, calls.pages(f"{path}/rows", status=statuses, limit=100))
    if as_json:
        print_json(found)
    else:
        print_backfill(found)
        if detach:
            _say_how_to_go_on(backfill_id, found["status"])
    if not detach and (found["status"] != "COMPLETED" or found["rows"]["refused"] or found["rows"]["invalid"]):
        raise typer.Exit(1)


def _rows(source: Source) -> Generator[Loadable | BadRow, None, None]:
    """The rows of a source; those of a query in Millrace's own database also while it is a `millrace dev`'s."""
    settings = Settings()
    if source.kind == "sql" and (source.connection or OWN_CONNECTION) == OWN_CONNECTION:
        settings = with_own_database(settings)
    return read_source(source, settings)


def print_backfill(found: dict[str, Any]) -> None:
    """A backfill, as fields."""
    print_fields(
        {
            "backfill": found["id"],
            "name": found["name"],
            "starts": found["template"] or f"what {found['entityType']} is linked to",
            "status": found["status"],
            "reason": found["statusReason"],
            "rate": found["rate"] and f"{found['rate']:g}/s",
            "concurrency": found["concurrency"],
            "rows": ", ".join(f"{count} {what}" for what, count in found["rows"].items() if count),
            "open executions": found["open"],
        }
    )


def _try_out(calls: Api, source: Source, target: dict[str, str], bad_rows: Path | None, as_json: bool) -> None:
    found: Checked = check(calls, target, _rows(source))
    if bad_rows is not None:
        _write_bad_rows(bad_rows, found.bad)
    if as_json:
        print_json(
            {
                "rows": found.rows,
                "valid": found.valid,
                "repeated": found.repeated,
                "problems": dict(found.codes),
                "first": [
                    {name: one[name] for name in ("number", "code", "message")} for one in found.bad[:SHOWN_PROBLEMS]
                ],
            }
        )
    else:
        print_fields({"rows": found.rows, "would start": found.valid, "started before": found.repeated} | found.codes)
        shown = [(one["number"], one["code"], one["message"]) for one in found.bad[:SHOWN_PROBLEMS]]
        print_table(("row", "code", "reason"), shown, empty="every row would be taken")
    if found.bad:
        raise typer.Exit(1)


def _write_bad_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    try:
        with file.open("w", encoding="utf-8", newline="") as written:
            lines = csv.writer(written)
            lines.writerow(("number", "code", "reason", "row"))
            for row in rows:
                said = row.get("raw") if row.get("raw") is not None else as_sent(row)
                lines.writerow((row["number"], row["code"], row["message"], json.dumps(said, ensure_ascii=False)))
    except OSError as error:
        raise Invalid("FILE_NOT_WRITABLE", f"{file}: {error.strerror or error}") from error


def _say_how_to_go_on(backfill_id: str, status: str) -> None:
    if status == "LOADING":
        says = f"Its rows are not all loaded. Go on: millrace backfill --resume {backfill_id}"
    else:
        says = (
            f"It goes on without this terminal. Watch it: millrace backfill --resume {backfill_id}\n"
            f"Also: millrace backfills pause|resume|cancel|show {backfill_id}"
        )
    err.print(Text(says), soft_wrap=True)


def _source(
    file: Path | None, sql: str | None, connection: str | None, written: Format | None, delimiter: str | None
) -> Source:
    if (file is None) == (sql is None):
        raise typer.BadParameter("name a FILE, or a query with --sql")
    if file is None:
        return Source(kind="sql", query=sql, connection=connection)
    if connection is not None:
        raise typer.BadParameter("--connection is for --sql")
    kind = written.value if written else ("ndjson" if file.suffix in {".ndjson", ".jsonl"} else "csv")
    if delimiter is not None and (len(delimiter) != 1 or kind != "csv"):
        raise typer.BadParameter("--delimiter is one character, of a CSV")
    whole = file.resolve()
    return Source(
        kind="csv" if kind == "csv" else "ndjson", file=str(whole), sha256=fingerprint(whole), delimiter=delimiter
    )


def _check_usage(target: dict[str, str], source: Source) -> None:
    if not target:
        raise typer.BadParameter("say what is to be started: --template, or --entity-type and --entity-id")
    if "entityType" in target and source.entity_id is None:
        raise typer.BadParameter("--entity-type needs --entity-id")
    if source.entity_id is not None and "entityType" not in target:
        raise typer.BadParameter("--entity-id needs --entity-type")


def _name_of(source: Source) -> str:
    return Path(source.file).name[:200] if source.file else "query"


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, _, column = text.partition("=")
        if not name.strip():
            raise typer.BadParameter(f"--context is NAME=COLUMN, or a column: {text!r}")
        pairs[name.strip()] = column.strip() or name.strip()
    return pairs
