"""`millrace dead-letters …` and `millrace incidents …`: what waits for an operator."""

from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, segment
from app.cli.output import AsJson, out, print_fields, print_json, print_table, time_of_day
from app.cli.steering import Key, Reason

dead_letters = typer.Typer(help="Runs that failed for good, kept so that they can be retried.", no_args_is_help=True)
incidents = typer.Typer(help="Steps that failed for good and are parked.", no_args_is_help=True)

Letter = Annotated[str, typer.Argument(metavar="ID", help="The id of the execution that failed.", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
Template = Annotated[str | None, typer.Option(help="A template's slug or id.")]
Code = Annotated[str | None, typer.Option(help="Only with this code.")]


@dead_letters.command("list")
def list_letters(
    template: Template = None,
    code: Code = None,
    retried: Annotated[bool | None, typer.Option(help="Only those retried, or only those not.")] = None,
    limit: Limit = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    asked = None if retried is None else str(retried).lower()
    with open_api(api) as calls:
        found = calls.first(limit, "/dead-letters", template=template, code=code, retried=asked)
    if as_json:
        print_json(found)
        return
    print_table(
        ("execution", "name", "template", "step", "code", "message", "failed", "retried"),
        [
            (
                one["executionId"],
                one["name"],
                f"{one['template']} {one['version']}",
                one["stepId"],
                one["code"],
                one["message"],
                time_of_day(one["createdAt"]),
                time_of_day(one["retriedAt"]),
            )
            for one in found
        ],
        empty="no dead letters",
    )


@dead_letters.command("show")
def show_letter(
    execution_id: Letter,
    state: Annotated[bool, typer.Option("--state", help="With the run's whole memory.")] = False,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show a dead letter."""
    with open_api(api) as calls:
        found = calls.get(f"/dead-letters/{segment(execution_id)}", state=str(state).lower())
    if as_json:
        print_json(found)
        return
    print_fields(
        {
            "execution": found["executionId"],
            "name": found["name"],
            "template": f"{found['template']} {found['version']}",
            "step": found["stepId"],
            "code": found["code"],
            "message": found["message"],
            "attempts": found["attempts"],
            "failed execution": found["failedExecutionId"],
            "failed": time_of_day(found["createdAt"]),
            "retried": time_of_day(found["retriedAt"]),
            "state": found.get("state"),
        }
    )


@dead_letters.command("retry")
def retry_letter(
    execution_id: Letter, reason: Reason = None, key: Key = None, api: ApiUrl = None, as_json: AsJson = False
) -> None:
    """Let the execution go on from its failed steps."""
    headers = acting(key)
    with open_api(api) as calls:
        answer = calls.post(f"/dead-letters/{segment(execution_id)}/retry", {"reason": reason}, headers=headers)
    if as_json:
        print_json(answer)
    else:
        out.print(f"Execution {execution_id} goes on.")


@dead_letters.command("purge")
def purge(
    created_before: Annotated[str | None, typer.Option(help="Those older than this time, ISO 8601.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Of this execution; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    reason: Reason = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters."""
    body: dict[str, Any] = {
        "createdBefore": created_before,
        "executionIds": ids or None,
        "dryRun": dry_run,
        "reason": reason,
    }
    with open_api(api) as calls:
        answer = calls.post("/dead-letters/purge", body)
    if as_json:
        print_json(answer)
    else:
        out.print(f"{answer['purged']} dead letter(s) {'would go' if dry_run else 'are gone'}.")


@incidents.command("list")
def list_incidents(
    execution_id: Annotated[str | None, typer.Option("--execution", help="Only of this execution.")] = None,
    template: Template = None,
    code: Code = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Those that are over, instead of open ones.")] = False,
    limit: Limit = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List open incidents, the latest first."""
    wanted = {
        "executionId": execution_id,
        "template": template,
        "code": code,
        "open": "false" if resolved else "true",
    }
    with open_api(api) as calls:
        found = calls.first(limit, "/incidents", **wanted)
    if as_json:
        print_json(found)
        return
    print_table(
        ("execution", "template", "step", "visit", "item", "code", "message", "opened", "resolution"),
        [
            (
                one["executionId"],
                one["template"],
                one["stepId"],
                one["visit"],
                one["item"],
                one["code"],
                one["message"],
                time_of_day(one["openedAt"]),
                one["resolution"],
            )
            for one in found
        ],
        empty="no incidents",
    )
