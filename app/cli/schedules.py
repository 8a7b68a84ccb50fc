"""`millrace schedules …`: what happens by the clock, and polls."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, read_json_object, segment
from app.cli.changing import ChangeFile, changed, print_gone
from app.cli.output import AsJson, out, print_fields, print_json, print_table, time_in_zone, time_of_day
from app.cli.steering import Key

app = typer.Typer(help="Schedules and polls: what happens by the clock.", no_args_is_help=True)

Schedule = Annotated[str, typer.Argument(metavar="SCHEDULE", help="A schedule's name or id.", show_default=False)]
Note = Annotated[str | None, typer.Option("--note", help="Why, for those who come after.")]
Count = Annotated[int, typer.Option(min=1, max=100, help="How many times.")]
After = Annotated[str | None, typer.Option(help="After this time, ISO 8601; now without it.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Option(help="Only SCHEDULE or POLL.")] = None,
    paused: Annotated[bool | None, typer.Option(help="Only those paused, or only those not.")] = None,
    limit: Limit = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List schedules and polls, the newest first."""
    asked = None if paused is None else str(paused).lower()
    with open_api(api) as calls:
        found = calls.first(limit, "/schedules", kind=kind, paused=asked)
    if as_json:
        print_json(found)
        return
    print_table(
        ("name", "kind", "when", "zone", "starts", "last", "state"),
        [
            (
                one["name"],
                one["kind"],
                _when(one["spec"]),
                one["spec"].get("timeZone", "UTC"),
                one["target"]["triggerKey"] or one["template"],
                time_of_day(one["lastRunAt"]),
                _state(one),
            )
            for one in found
        ],
        empty="no schedules",
    )


@app.command("show")
def show(schedule: Schedule, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show a schedule, and what it brought in last. What --json prints can be changed and given to `change`."""
    with open_api(api) as calls:
        found = calls.get(f"/schedules/{segment(schedule)}")
        runs = [] if as_json else calls.get(f"/schedules/{segment(schedule)}/runs", limit=10)["items"]
    if as_json:
        print_json(found)
        return
    print_fields(
        {
            "id": found["id"],
            "name": found["name"],
            "description": found["description"],
            "kind": found["kind"],
            "when": found["spec"],
            "overlap": found["overlap"],
            "limit": found["maxExecutions"],
            "left": found["remaining"],
            "template": found["template"],
            "trigger key": found["target"]["triggerKey"],
            "context": found["target"]["context"],
            "execution's name": found["target"]["name"],
            "catch-up window": found["catchUpWindow"],
            "poll": found["poll"],
            "cursor": found["cursor"],
            "state": _state(found),
            "note": found["note"],
            "last": time_of_day(found["lastRunAt"]),
            "failures in a row": found["failures"],
            "last error": found["lastError"],
        }
    )
    if runs:
        _print_runs(runs)


@app.command("runs")
def runs(schedule: Schedule, limit: Limit = 50, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """List what a schedule brought in, the latest first, and what that started."""
    with open_api(api) as calls:
        found = calls.first(limit, f"/schedules/{segment(schedule)}/runs")
    if as_json:
        print_json(found)
    else:
        _print_runs(found)


@app.command("create")
def create(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The schedule as JSON.", show_default=False)],
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Create a schedule or a poll."""
    with open_api(api) as calls:
        created = calls.post("/schedules", read_json_object(file), headers=acting(key))
    _told(created, "is there", as_json)


@app.command("change")
def change(
    schedule: Schedule,
    file: ChangeFile = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    cron: Annotated[list[str] | None, typer.Option(help="Instead of its cron expressions; may be repeated.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Such as Europe/Berlin.")] = None,
    overlap: Annotated[str | None, typer.Option(help="SKIP, BUFFER_ONE, BUFFER_ALL, ALLOW_ALL …")] = None,
    max_executions: Annotated[int | None, typer.Option(min=1, help="How often it comes at most.")] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="As often as its time comes.")] = False,
    reset_cursor: Annotated[bool, typer.Option("--reset-cursor", help="Of a poll: ask from the beginning.")] = False,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Change a schedule; what is left out stays."""
    if unlimited and max_executions is not None:
        raise typer.BadParameter("--unlimited and --max-executions contradict each other")
    path = f"/schedules/{segment(schedule)}"
    when = {field: value for field, value in (("cron", cron or None), ("timeZone", time_zone)) if value is not None}
    options: dict[str, Any] = {
        "name": name,
        "description": description,
        "overlap": overlap and overlap.upper(),
        "maxExecutions": max_executions,
        "resetCursor": reset_cursor or None,
    }
    with open_api(api) as calls:
        cleared = ["maxExecutions"] if unlimited else []
        body = changed(file, options, cleared, {"spec": when}, lambda: calls.get(path))
        found = calls.patch(path, body)
    _told(found, "is changed", as_json)


@app.command("preview")
def preview(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A `spec` as JSON.", show_default=False)] = None,
    cron: Annotated[list[str] | None, typer.Option(help="A cron expression; may be repeated.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Such as Europe/Berlin.")] = None,
    count: Count = 10,
    after: After = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show when a specification would come, in its own time zone; nothing is stored."""
    options = {"cron": cron or None, "timeZone": time_zone}
    spec = changed(file, options, needed="say what is to be previewed: a FILE with a `spec`, or --cron")
    query = {"count": str(count)} | ({} if after is None else {"after": after})
    with open_api(api) as calls:
        _print_times(calls.post("/schedules/preview", spec, query=query), as_json)


@app.command("run")
def run(
    schedule: Schedule,
    overlap: Annotated[str | None, typer.Option(help="An overlap policy for this once, such as ALLOW_ALL.")] = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let a schedule come now, also a paused one."""
    with open_api(api) as calls:
        answer = calls.post(f"/schedules/{segment(schedule)}/run", {"overlap": overlap}, headers=acting(key))
    if as_json:
        print_json(answer)
    else:
        out.print(f"{schedule} has been asked to run.")


@app.command("pause")
def pause(schedule: Schedule, note: Note = None, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Let a schedule come no more until it is resumed."""
    with open_api(api) as calls:
        paused = calls.post(f"/schedules/{segment(schedule)}/pause", {"note": note})
    _told(paused, "is paused", as_json)


@app.command("resume")
def resume(schedule: Schedule, note: Note = None, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """End a pause."""
    with open_api(api) as calls:
        resumed = calls.post(f"/schedules/{segment(schedule)}/resume", {"note": note})
    _told(resumed, "comes again", as_json)


@app.command("delete")
def delete(schedule: Schedule, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Delete a schedule; what it started goes on."""
    with open_api(api) as calls:
        calls.delete(f"/schedules/{segment(schedule)}")
    print_gone(schedule, f"{schedule} is deleted.", as_json)


@app.command("next")
def next_(
    schedule: Schedule,
    count: Count = 10,
    after: After = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show when a schedule comes next, as Temporal works it out, in its own time zone."""
    with open_api(api) as calls:
        _print_times(calls.get(f"/schedules/{segment(schedule)}/next", count=count, after=after), as_json)


def _print_times(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found["items"])
        return
    for time in found["items"]:
        out.print(time_in_zone(time, found["timeZone"]))
    if not found["items"]:
        out.print("It does not come any more.")


def _told(schedule: dict[str, Any], what: str, as_json: bool) -> None:
    if as_json:
        print_json(schedule)
        return
    out.print(f"{schedule['name']} {what}.")
    if not schedule["synced"]:
        out.print(f"Temporal has not been told yet: {schedule['syncError']}")


def _print_runs(runs: list[dict[str, Any]]) -> None:
    rows = [
        (time_of_day(one["receivedAt"]), one["eventRecordId"], one["summary"], one["status"], one["executionIds"])
        for one in runs
    ]
    print_table(("received", "event", "summary", "status", "executions"), rows, empty="no events yet")


def _when(spec: dict[str, Any]) -> str:
    every = [f"every {one['every']}" for one in spec.get("intervals", [])]
    calendars = [one.get("comment") or "calendar" for one in spec.get("calendars", [])]
    return "; ".join([*spec.get("cron", []), *every, *calendars])


def _state(schedule: dict[str, Any]) -> str:
    if not schedule["synced"]:
        return "not synced"
    if schedule["paused"]:
        return "paused"
    if schedule["remaining"] == 0:
        return "used up"
    return "failing" if schedule["failures"] else "on"
