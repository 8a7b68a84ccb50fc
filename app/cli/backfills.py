"""`millrace backfills …`: those there are, and what is done to them while they go on."""

from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, segment
from app.cli.output import AsJson, out, print_fields, print_json, print_table, time_of_day
from app.cli.steering import Key

app = typer.Typer(help="Backfills: executions for many past events.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The backfill's id.", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]


@app.command("list")
def list_backfills(
    status: Annotated[str | None, typer.Option(help="LOADING, RUNNING, PAUSED, COMPLETED …")] = None,
    limit: Limit = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List backfills, the newest first."""
    with open_api(api) as calls:
        found = calls.first(limit, "/backfills", status=status)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["name"],
            one["template"] or one["entityType"],
            one["status"],
            one["rows"]["total"],
            one["rows"]["pending"],
            one["rows"]["started"],
            one["rows"]["refused"] + one["rows"]["invalid"],
            time_of_day(one["createdAt"]),
        )
        for one in found
    ]
    columns = ("backfill", "name", "starts", "status", "rows", "pending", "started", "bad", "created")
    print_table(columns, rows, empty="no backfills")


@app.command("show")
def show(backfill_id: Id, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show a backfill and how far it is."""
    with open_api(api) as calls:
        found = calls.get(f"/backfills/{segment(backfill_id)}")
    _print(found, as_json)


@app.command("rows")
def list_rows(
    backfill_id: Id,
    status: Annotated[
        list[str] | None, typer.Option(help="PENDING, STARTED, REPEATED, REFUSED or INVALID; may be repeated.")
    ] = None,
    code: Annotated[str | None, typer.Option(help="Only with this code.")] = None,
    limit: Limit = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the rows of a backfill and what became of each."""
    with open_api(api) as calls:
        found = calls.first(limit, f"/backfills/{segment(backfill_id)}/rows", status=status or None, code=code)
    if as_json:
        print_json(found)
        return
    rows = [
        (one["number"], one["eventId"], one["status"], one["executionId"], one["code"], one["message"]) for one in found
    ]
    print_table(("row", "event", "status", "execution", "code", "message"), rows, empty="no rows")


@app.command("pause")
def pause(backfill_id: Id, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Start no more rows for now."""
    _change(backfill_id, "pause", api, as_json)


@app.command("resume")
def resume(backfill_id: Id, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Go on with a paused backfill."""
    _change(backfill_id, "resume", api, as_json)


@app.command("cancel")
def cancel(backfill_id: Id, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Start no more rows for good; executions that have been started go on."""
    _change(backfill_id, "cancel", api, as_json)


@app.command("start")
def start(backfill_id: Id, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Start the rows of a backfill that is LOADING; it takes no more of them."""
    _change(backfill_id, "start", api, as_json)


@app.command("retry")
def retry(
    backfill_id: Id,
    code: Annotated[str | None, typer.Option(help="Only those refused with this code.")] = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give rows that were refused another turn; no other row is touched, and none is started twice."""
    with open_api(api) as calls:
        body = {} if code is None else {"code": code}
        found = calls.post(f"/backfills/{segment(backfill_id)}/retry", body, headers=acting(key))
    if as_json:
        print_json(found)
    else:
        out.print(f"{found['name']} is {found['status']}, with {found['rows']['pending']} row(s) to start.")


def _change(backfill_id: str, what: str, api: str | None, as_json: bool) -> None:
    with open_api(api) as calls:
        found = calls.post(f"/backfills/{segment(backfill_id)}/{what}")
    if as_json:
        print_json(found)
    else:
        out.print(f"{found['name']} is {found['status']}.")


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_backfill(found)


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
