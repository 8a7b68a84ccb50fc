"""`millrace executions …`: see what runs, and complete what waits for a person."""

import re
from collections.abc import Iterator
from operator import itemgetter
from typing import Annotated, Any

import typer

from app.cli.api_client import Api, ApiUrl, acting, open_api, read_json, segment
from app.cli.output import AsJson, duration, out, print_fields, print_json, print_table, time_of_day
from app.errors import AppError, Conflict

app = typer.Typer(help="See and steer executions.", no_args_is_help=True)

ExecutionId = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.", show_default=False)]


@app.command("list")
def list_(
    template: Annotated[str | None, typer.Option(help="A template's slug or id.")] = None,
    status: Annotated[str | None, typer.Option(help="CREATED, STARTED, FAILED_TO_START or COMPLETED.")] = None,
    runtime_status: Annotated[
        str | None, typer.Option(help="NOT_STARTED, IN_PROGRESS, COMPLETED, FAILED, CANCELLED …")
    ] = None,
    entity_type: Annotated[str | None, typer.Option(help="SERVICE_CATALOG or PRODUCT.")] = None,
    entity_id: Annotated[str | None, typer.Option(help="The service code or the product's id.")] = None,
    root: Annotated[str | None, typer.Option(help="Only the descendants of this root, and itself.")] = None,
    roots: Annotated[bool, typer.Option("--roots", help="No children.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List executions, the newest first."""
    wanted = {
        "template": template,
        "status": status,
        "runtimeStatus": runtime_status,
        "entityType": entity_type,
        "entityId": entity_id,
        "rootId": root,
        "rootsOnly": "true" if roots else None,
    }
    with open_api(api) as calls:
        found = calls.first(limit, "/executions", **wanted)
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "template", "status", "runtime status", "created", "took"),
        [
            (
                one["id"],
                one["name"],
                f"{one['template']} {one['version']}",
                one["status"],
                one.get("runtimeStatus"),
                time_of_day(one["createdAt"]),
                duration(one.get("startedAt"), one.get("endedAt")),
            )
            for one in found
        ],
        empty="no executions",
    )


@app.command("show")
def show(
    execution_id: ExecutionId,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until it is over; with --json, one event a line.")
    ] = False,
    output: Annotated[
        bool, typer.Option("--output", help="Print its output alone, whole, as JSON; leave with 1 when it has none.")
    ] = False,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show an execution, its steps, and what it waits for. Followed to an end other than COMPLETED it leaves with 1."""
    if follow:
        from app.cli import following

        with open_api(api) as calls:
            ended_well = following.follow(calls, execution_id, as_json)
        if not ended_well:
            raise typer.Exit(1)
        return
    with open_api(api) as calls:
        found = calls.get(f"/executions/{segment(execution_id)}")
        steps = [] if output else _steps(calls, execution_id)
    if output:
        if "output" not in found:
            raise Conflict("NO_OUTPUT", f"The execution has no output: it is {found.get('runtimeStatus') or 'open'}.")
        print_json(found["output"])
        return
    if as_json:
        print_json({**found, "steps": steps})
        return
    print_fields(
        {
            "execution": found["id"],
            "name": found["name"],
            "template": f"{found['template']} {found['version']}",
            "status": found["status"],
            "runtime status": found.get("runtimeStatus"),
            "paused": said_of_pause(found.get("paused")),
            "started": time_of_day(found.get("startedAt")),
            "ended": time_of_day(found.get("endedAt")),
            "parent": found.get("parentId"),
            "started by": said_of_trigger(found.get("trigger")),
            "output": found.get("output"),
            "error": found.get("error"),
            "reason": found.get("statusReason"),
            "problem": found.get("problem"),
            "Temporal UI": found.get("temporalUi"),
        }
    )
    out.print()
    print_table(STEP_COLUMNS, [step_row(step) for step in steps], empty="no steps yet")
    _print_waiting(found.get("waitingFor") or [])


@app.command("step")
def step(
    execution_id: ExecutionId,
    step_id: Annotated[str, typer.Argument(metavar="STEP", help="The step's id.", show_default=False)],
    visit: Annotated[int | None, typer.Option(min=1, help="Only this visit.")] = None,
    item: Annotated[int | None, typer.Option(min=0, help="Only this item, counted from 0.")] = None,
    chunk: Annotated[str | None, typer.Option(help="The key of a CHUNK: the calls of its run.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many calls at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="`nextCursor` of the page before.")] = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show what a step was given and what came of it, the newest first."""
    wanted = {"visit": visit, "item": item, "chunk": chunk, "limit": limit, "cursor": cursor}
    with open_api(api) as calls:
        found = calls.get(f"/executions/{segment(execution_id)}/steps/{segment(step_id)}", **wanted)
    if as_json:
        print_json(found)
        return
    print_fields({name: found.get(name) for name in ("stepId", "name", "type", "status", "items", "error", "problem")})
    for call in [*found["signals"], *(call for one in found["visits"] for call in one["calls"])]:
        out.print()
        print_fields(
            {
                "call": call["key"],
                "kind": call["kind"],
                "what": call["name"],
                "status": call["status"],
                "by": call.get("who"),
                "reason": call.get("reason"),
                "answer": call.get("answer"),
                "attempts": call.get("attempts"),
                "execution": call.get("executionId"),
                "items": call.get("items"),
                "input": call.get("input"),
                "output": call.get("output"),
                "error": call.get("error"),
                "last failure": call.get("lastFailure"),
                "began": time_of_day(call.get("startedAt") or call.get("scheduledAt")),
                "took": duration(call.get("startedAt") or call.get("scheduledAt"), call.get("closedAt")),
                "due": time_of_day(call.get("dueAt")),
            }
        )
    _print_waiting([wait for one in found["visits"] for wait in one["waitingFor"]])
    if len(found["runs"]) > 1:
        out.print()
        rows = [(run["runId"], run["began"], time_of_day(run["startedAt"]), run.get("actor")) for run in found["runs"]]
        print_table(("run", "began by", "at", "by"), rows)
    if found["nextCursor"]:
        out.print(f"There may be older ones: --cursor {found['nextCursor']}", style="dim", soft_wrap=True)


@app.command("tree")
def tree(execution_id: ExecutionId, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show an execution with all its descendants."""
    with open_api(api) as calls:
        found = calls.get(f"/executions/{segment(execution_id)}/tree")
    if as_json:
        print_json(found)
        return
    print_trees(found["tree"], with_ids=True)
    if found["truncated"]:
        out.print(f"… and more: {found['count']} executions are shown.", style="dim")


@app.command("complete")
def complete(
    execution_id: ExecutionId,
    step_id: Annotated[str, typer.Argument(metavar="STEP", help="The step that waits for a person.")],
    outcome: Annotated[str | None, typer.Option(help="One of the step's outcomes.")] = None,
    comment: Annotated[str | None, typer.Option(help="For those who come after.")] = None,
    data: Annotated[str | None, typer.Option(help="The filled form, or the documents by key: JSON, or @FILE.")] = None,
    visit: Annotated[int | None, typer.Option(help="Which visit, where several are open.")] = None,
    item: Annotated[int | None, typer.Option(help="Which item, where several are open.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key completes nothing twice.")] = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Complete a step that waits for a person."""
    given = {"outcome": outcome, "comment": comment, "visit": visit, "item": item}
    body = {field: value for field, value in given.items() if value is not None}
    if data is not None:
        body["data"] = read_json(data)
    with open_api(api) as calls:
        answer = calls.post(
            f"/executions/{segment(execution_id)}/steps/{segment(step_id)}/complete", body, headers=acting(key)
        )
    if as_json:
        print_json(answer)
    else:
        out.print(f"Completed {step_id}.")


def _steps(calls: Api, execution_id: str) -> list[dict[str, Any]]:
    """The steps, or none where nobody can say: the execution itself is worth showing then, too."""
    try:
        steps: list[dict[str, Any]] = calls.get(f"/executions/{segment(execution_id)}/steps")["steps"]
    except AppError as error:
        if error.code not in {"WORKER_UNAVAILABLE", "RUN_NOT_FOUND"}:
            raise
        return []
    return steps


def print_trees(*roots: dict[str, Any], with_ids: bool = False) -> None:
    """Executions with their descendants, one line each."""
    rows = [
        (
            guide + one["name"],
            f"{one['template']} {one['version']}",
            one["status"],
            one["runtimeStatus"],
            duration(one.get("startedAt"), one.get("endedAt")),
            *([one["id"]] if with_ids else []),
        )
        for root in roots
        for guide, one in _lines(root)
    ]
    print_table(("execution", "version", "record", "runtime", "took", *(["id"] if with_ids else [])), rows)


def _lines(node: dict[str, Any], guide: str = "", below: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield guide, node
    children = _in_order(node["children"])
    for place, child in enumerate(children, start=1):
        last = place == len(children)
        yield from _lines(child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))


def _in_order(children: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Template by template as they came; within one by name, where "lamp 9" comes before "lamp 10"."""
    first: dict[str, str] = {}
    for child in sorted(children, key=itemgetter("createdAt")):
        first.setdefault(child["template"], child["createdAt"])

    def place(child: dict[str, Any]) -> tuple[str, list[str | int]]:
        words = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", child["name"])]
        return first[child["template"]], words

    return sorted(children, key=place)


STEP_COLUMNS = ("step", "name", "status", "visits", "items", "took")


def step_row(step: dict[str, Any]) -> tuple[Any, ...]:
    """A step in a table under `STEP_COLUMNS`."""
    items = step.get("items")
    counted = None
    if items is not None:
        failed = f", {items['failed']} failed" if items["failed"] else ""
        counted = f"{items['done']} of {items['total']}{failed}"
    took = duration(step.get("startedAt"), step.get("endedAt"))
    return step["id"], step["name"], step["status"], step["visits"], counted, took


def said_of_pause(paused: dict[str, Any] | None) -> str | None:
    """Since when, and by whom, an execution is paused."""
    if paused is None:
        return None
    return f"since {time_of_day(paused['since'])}" + (f" by {paused['by']}" if paused.get("by") else "")


def said_of_trigger(trigger: dict[str, Any] | None) -> str | None:
    """What started an execution, and the event's id in the inbox."""
    if trigger is None:
        return None
    said = str(trigger.get("summary") or trigger["source"])
    return said + (f" (event {trigger['eventRecordId']})" if trigger.get("eventRecordId") else "")


def _which_item(wait: dict[str, Any]) -> str | int | None:
    """The item of a wait; how many wait where one entry stands for several."""
    return f"{wait['count']} items" if wait.get("count", 1) > 1 else wait.get("item")


def _print_waiting(waiting: list[dict[str, Any]]) -> None:
    if not waiting:
        return
    out.print()
    columns = ["waits for", "step", "visit", "item", "who", "since", "until"]
    rows = [
        [
            one["kind"],
            one["stepId"],
            one["visit"],
            _which_item(one),
            one.get("who"),
            time_of_day(one["since"]),
            time_of_day(one.get("until")),
        ]
        for one in waiting
    ]
    if any(one.get("code") for one in waiting):
        columns.append("why")
        for row, one in zip(rows, waiting, strict=True):
            row.append(f"{one['code']}: {one['message']}" if one.get("message") else one.get("code"))
    print_table(columns, rows)
