"""`millrace changes …`: tables whose changes are events."""

import json
from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, read_json, segment
from app.cli.changing import print_gone
from app.cli.output import AsJson, out, print_fields, print_json, print_line, print_table, time_of_day
from app.cli.steering import Key
from app.errors import Invalid

changes = typer.Typer(help="Tables of PostgreSQL whose changes are events.", no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="The trigger's key, such as orders_db_change, or the source's id.")
]
PATH = "/change-sources"


@changes.command("list")
def list_sources(
    connection: Annotated[str | None, typer.Option(help="Only of this connection.")] = None,
    status: Annotated[str | None, typer.Option(help="ACTIVE, PAUSED or FAILED.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List watched tables, the newest first."""
    with open_api(api) as calls:
        found = calls.first(limit, PATH, connection=connection, status=status)
    if as_json:
        print_json(found)
        return
    columns = ("trigger", "connection", "table", "method", "status", "events", "last change", "lag", "problem")
    print_table(
        columns,
        [
            (
                one["key"],
                one["connection"],
                _table(one),
                one["method"],
                one["status"],
                one["eventsStored"],
                time_of_day(one["lastChangeAt"]),
                _size(one["lagBytes"]),
                one["code"],
            )
            for one in found
        ],
        empty="no watched tables",
    )


@changes.command("show")
def show(source: Source, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show a watched table, and how far behind its reading is."""
    with open_api(api) as calls:
        found = calls.get(f"{PATH}/{segment(source)}")
    if as_json:
        print_json(found)
        return
    print_fields(_fields(found))


@changes.command("watch")
def watch(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="The table, or SCHEMA.TABLE.")],
    connection: Annotated[str, typer.Option(help="A configured database; `millrace` is its own.")] = "millrace",
    method: Annotated[str, typer.Option(help="replication, outbox or posted.")] = "replication",
    operation: Annotated[
        list[str] | None, typer.Option(help="INSERT, UPDATE or DELETE; may be repeated. All, without it.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="An UPDATE counts only if it changed one of these; may be repeated.")
    ] = None,
    status_column: Annotated[str | None, typer.Option(help="Only UPDATEs that changed this column count.")] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="A filter over the payload: JSON, or @FILE.")] = None,
    entity: Annotated[
        str | None, typer.Option(metavar="TYPE=COLUMN", help="The column that holds the id of an entity.")
    ] = None,
    key_only: Annotated[
        bool, typer.Option("--key-only", help="Leave the table's replica identity: `before` is the key alone.")
    ] = False,
    print_sql: Annotated[
        bool, typer.Option("--print-sql", help="Print what --method outbox would run, and run nothing.")
    ] = False,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make the changes of a table events, from now on."""
    schema, name = _named(table)
    if print_sql:
        _print_sql(schema, name, method)
        return
    body: dict[str, Any] = {
        "connection": connection,
        "schema": schema,
        "table": name,
        "method": method.upper(),
        "monitoredColumns": column or [],
        "statusColumn": status_column,
        "filter": None if filter_ is None else read_json(filter_),
        "wholeBefore": not key_only,
        **_entity(entity),
    }
    if operation:
        body["operations"] = [one.upper() for one in operation]
    with open_api(api) as calls:
        found = calls.post(PATH, body, headers=acting(key))
    if as_json:
        print_json(found)
        return
    out.print(f"Changes of {_table(found)} are events of {found['key']}.")
    if found["beforeImage"] == "KEY":
        out.print("Of a row before its change, only the key is known.")


@changes.command("unwatch")
def unwatch(
    source: Source,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Leave what was made in the table's database, which is not asked.")
    ] = False,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """End the watching, and take away what was made for it."""
    with open_api(api) as calls:
        calls.delete(f"{PATH}/{segment(source)}", abandon="true" if abandon else None)
    print_gone(source, f"{source} is watched no more.", as_json)


@changes.command("post")
def post(
    events: Annotated[
        str, typer.Argument(metavar="JSON", help="An event as Debezium writes it, or a list of them; or @FILE.")
    ],
    table: Annotated[str | None, typer.Option(help="Where the events name none.")] = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Post changes of a table that is watched with --method posted."""
    query = None if table is None else {"table": table}
    with open_api(api) as calls:
        content = json.dumps(read_json(events))
        answer = calls.post("/changes/debezium", query=query, headers=acting(key), content=content)
    if as_json:
        print_json(answer)
    else:
        out.print(f"{answer['stored']} stored, {answer['repeated']} repeated, {answer['skipped']} skipped.")


@changes.command("pause")
def pause(source: Source, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Let the changes wait where they are; their server's log grows meanwhile."""
    _turn(source, "pause", "waits.", api, as_json)


@changes.command("resume")
def resume(source: Source, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Go on where it was paused; of a failed one, make anew what it has lost and go on from now."""
    _turn(source, "resume", "goes on.", api, as_json)


def _turn(source: str, deed: str, said: str, api: str | None, as_json: bool) -> None:
    with open_api(api) as calls:
        found = calls.post(f"{PATH}/{segment(source)}/{deed}")
    if as_json:
        print_json(found)
    else:
        out.print(f"{found['key']} {said}")


def _print_sql(schema: str, name: str, method: str) -> None:
    from app.changes.outbox import TABLE, setup_sql

    if method.lower() != "outbox":
        raise Invalid("SQL_UNKNOWN", "--print-sql is for --method outbox.")
    print_line(setup_sql(schema, name))
    print_line(f"-- And for the user of the connection:\n-- GRANT SELECT, UPDATE, DELETE ON public.{TABLE} TO …;")


def _named(table: str) -> tuple[str, str]:
    schema, dot, name = table.partition(".")
    return (schema, name) if dot else ("public", table)


def _entity(entity: str | None) -> dict[str, str]:
    if entity is None:
        return {}
    kind, sign, column = entity.partition("=")
    if not (kind and sign and column):
        raise Invalid("ENTITY_INCOMPLETE", f"An entity is written TYPE=COLUMN; this is {entity}.")
    return {"entityType": kind.upper(), "entityColumn": column}


def _table(source: dict[str, Any]) -> str:
    return source["table"] if source["schema"] == "public" else f"{source['schema']}.{source['table']}"


def _size(count: int | None) -> str | None:
    return None if count is None else f"{count / 1024**2:,.1f} MiB"


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    entity = f"{found['entityType']} in {found['entityColumn']}" if found["entityType"] else None
    return {
        "trigger": found["key"],
        "id": found["id"],
        "connection": found["connection"],
        "table": _table(found),
        "method": found["method"],
        "status": found["status"],
        "problem": f"{found['code']}: {found['message']}" if found["code"] else None,
        "operations": " ".join(found["operations"]),
        "monitored columns": " ".join(found["monitoredColumns"]),
        "status column": found["statusColumn"],
        "filter": json.dumps(found["filter"], ensure_ascii=False) if found["filter"] else None,
        "entity": entity,
        "row before": "whole" if found["beforeImage"] == "FULL" else "its key alone",
        "changes seen": found["changesSeen"],
        "events stored": found["eventsStored"],
        "last change": time_of_day(found["lastChangeAt"]),
        "slot": found["slot"],
        "publication": found["publication"],
        "complete up to": found["checkpoint"],
        "log kept for it": _size(found["lagBytes"]),
        "not yet read": _size(found["unreadBytes"]),
        "waiting changes": found["waitingChanges"],
        "cannot be asked": found["unreachable"],
    }
