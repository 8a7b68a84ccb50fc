"""`millrace executions …`: what can be done to an execution. The commands are added to those that show them."""

import json
from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, read_json, segment
from app.cli.definitions import find_version_id
from app.cli.executions import ExecutionId
from app.cli.mappings import MappingFile, Pairs, mapping_of
from app.cli.output import AsJson, out, print_fields, print_json, print_table, time_of_day

StepId = Annotated[str, typer.Argument(metavar="STEP", help="The step's id.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Why, for the audit.")]
Key = Annotated[str | None, typer.Option("--key", help="Idempotency key: the same key does nothing twice.")]
Visit = Annotated[int | None, typer.Option(min=1, help="Which visit, where several are open.")]
Item = Annotated[int | None, typer.Option(min=0, help="Which item, where several are open.")]
Detached = Annotated[bool, typer.Option("--include-detached", help="Also children that may outlive it.")]
Compensate = Annotated[bool, typer.Option(help="Undo what was done.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("signal")(signal)
    app.command("pause")(pause)
    app.command("resume")(resume)
    app.command("cancel")(cancel)
    app.command("terminate")(terminate)
    app.command("resume-step")(resume_step)
    app.command("skip-timer")(skip_timer)
    app.command("incident")(incident)
    app.command("replay")(replay)
    app.command("retry")(retry)
    app.command("resume-from")(resume_from)
    app.command("migrate")(migrate)
    app.command("lineage")(lineage)
    app.command("audit")(audit)


def signal(
    execution_id: ExecutionId,
    name: Annotated[str, typer.Argument(help="The signal's name.", show_default=False)],
    payload: Annotated[
        str | None, typer.Argument(metavar="[PAYLOAD]", help="JSON, or @FILE.", show_default=False)
    ] = None,
    correlation_key: Annotated[str | None, typer.Option(help="Which of several that wait.")] = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Send a signal; one that comes early is kept."""
    query = {"correlationKey": correlation_key} if correlation_key is not None else None
    with open_api(api) as calls:
        answer = calls.post(
            f"/executions/{segment(execution_id)}/signals/{segment(name)}",
            query=query,
            headers=acting(key),
            content=json.dumps(_given(payload)),
        )
    _say(answer, as_json, f"Signal {name}: {answer['status']}.")


def pause(
    execution_id: ExecutionId, reason: Reason = None, key: Key = None, api: ApiUrl = None, as_json: AsJson = False
) -> None:
    """Start no new work, in its children neither; what runs finishes."""
    answer = _post(api, execution_id, "pause", {"reason": reason}, key)
    _say(answer, as_json, f"Paused {execution_id}." if answer["status"] == "APPLIED" else "It was paused already.")


def resume(
    execution_id: ExecutionId, reason: Reason = None, key: Key = None, api: ApiUrl = None, as_json: AsJson = False
) -> None:
    """End a pause."""
    answer = _post(api, execution_id, "resume", {"reason": reason}, key)
    _say(answer, as_json, f"Resumed {execution_id}." if answer["status"] == "APPLIED" else "It was not paused.")


def cancel(
    execution_id: ExecutionId,
    compensate: Compensate = True,
    include_detached: Detached = False,
    reason: Reason = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Cancel an execution and its descendants."""
    body = {"compensate": compensate, "includeDetached": include_detached, "reason": reason}
    _say(_post(api, execution_id, "cancel", body, key), as_json, f"Cancelling {execution_id}.")


def terminate(
    execution_id: ExecutionId, reason: Reason = None, key: Key = None, api: ApiUrl = None, as_json: AsJson = False
) -> None:
    """End an execution and its descendants at once, undoing nothing."""
    answer = _post(api, execution_id, "terminate", {"reason": reason}, key)
    _say(answer, as_json, f"Terminated {answer['terminated']} execution(s).")


def resume_step(
    execution_id: ExecutionId,
    step_id: StepId,
    data: Annotated[str | None, typer.Option(help="What the action is told: JSON, or @FILE.")] = None,
    visit: Visit = None,
    item: Item = None,
    reason: Reason = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Enter a suspended action again."""
    body = {"visit": visit, "item": item, "reason": reason, "data": _given(data)}
    answer = _post(api, execution_id, f"steps/{segment(step_id)}/resume", body, key)
    _say(answer, as_json, f"Resumed {step_id}.")


def skip_timer(
    execution_id: ExecutionId,
    step_id: StepId,
    visit: Visit = None,
    item: Item = None,
    reason: Reason = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let a step's timer fire now."""
    body = {"visit": visit, "item": item, "reason": reason}
    answer = _post(api, execution_id, f"steps/{segment(step_id)}/skip-timer", body, key)
    _say(answer, as_json, f"Skipped the timer of {step_id}.")


def incident(
    execution_id: ExecutionId,
    step_id: StepId,
    action: Annotated[str, typer.Argument(help="retry, complete or fail.", show_default=False)],
    parameters: Annotated[str | None, typer.Option(help="Retry with these instead: JSON, or @FILE.")] = None,
    output: Annotated[str | None, typer.Option(help="Complete with this output: JSON, or @FILE.")] = None,
    visit: Visit = None,
    item: Item = None,
    reason: Reason = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Resolve an incident."""
    body = {"action": action, "visit": visit, "item": item, "reason": reason}
    body |= documents(output=output, parameters=parameters)
    answer = _post(api, execution_id, f"incidents/{segment(step_id)}", body, key)
    _say(answer, as_json, f"{step_id}: {action}.")


def replay(
    execution_id: ExecutionId,
    name: Annotated[str | None, typer.Option(help="The new execution's name.")] = None,
    reason: Reason = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Start a new execution of the same version with the same trigger and context."""
    answer = _post(api, execution_id, "replay", {"name": name, "reason": reason}, key)
    _say(answer, as_json, f"Execution {answer['executionId']}: {answer['status']}.")


def retry(
    execution_id: ExecutionId, reason: Reason = None, key: Key = None, api: ApiUrl = None, as_json: AsJson = False
) -> None:
    """Let a failed execution go on from its failed steps."""
    answer = _post(api, execution_id, "retry", {"reason": reason}, key)
    _say(answer, as_json, f"Execution {execution_id} goes on.")


def resume_from(
    execution_id: ExecutionId,
    step_id: StepId,
    context: Annotated[str | None, typer.Option(help="The context to go on with: JSON, or @FILE.")] = None,
    output: Annotated[str | None, typer.Option(help="The step's output instead: JSON, or @FILE.")] = None,
    visit: Visit = None,
    item: Item = None,
    reason: Reason = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let a closed execution go on from a completed step."""
    point = {"stepId": step_id, "visit": visit, "item": item, "reason": reason}
    given = {name: value for name, value in point.items() if value is not None}
    given |= documents(context=context, output=output)
    answer = _post(api, execution_id, "resume-from", given, key)
    _say(answer, as_json, f"Execution {execution_id} goes on from {step_id}.")


def migrate(
    execution_id: ExecutionId,
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="The version to go on with: slug@1.2.0, or its id.")
    ],
    pairs: Pairs = None,
    mapping: MappingFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say whether it can be done.")] = False,
    reason: Reason = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let an open execution go on with another version. A dry run that finds that it cannot leaves with 1."""
    with open_api(api) as calls:
        version_id = find_version_id(calls, version)
    body = {
        "versionId": version_id,
        "mapping": mapping_of(execution_id, pairs, mapping),
        "dryRun": dry_run,
        "reason": reason,
    }
    answer = _post(api, execution_id, "migrate", body, key)
    if as_json:
        print_json(answer)
    else:
        out.print(f"Version {answer['version']}: {'migrated' if answer['migrated'] else answer['verdict']}.")
        rows = [(finding["stepId"], finding["code"], finding["reason"]) for finding in answer["findings"]]
        if rows:
            print_table(("step", "finding", "reason"), rows)
    if answer["verdict"] != "SAFE":
        raise typer.Exit(1)


def lineage(execution_id: ExecutionId, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show the retries, resumptions and migrations of an execution, and what it is the replay of."""
    with open_api(api) as calls:
        turns = calls.get(f"/executions/{segment(execution_id)}/lineage")["items"]
    if as_json:
        print_json(turns)
        return
    shown = ("kind", "status", "actor", "stepId", "visit", "item", "sourceId", "closedAs", "runId", "note")
    print_table(
        ("at", "turn", "status", "actor", "step", "visit", "item", "replay of", "had ended", "run", "reason"),
        [(time_of_day(one["at"]), *(one[name] for name in shown)) for one in turns],
        empty="it has gone its way in one turn",
    )


def audit(
    execution_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only this execution.", show_default=False)
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this one did.")] = None,
    action: Annotated[str | None, typer.Option(help="CANCEL, RETRY, SIGNAL, BULK_CANCEL …")] = None,
    after: Annotated[str | None, typer.Option(help="From this time on, ISO 8601.")] = None,
    before: Annotated[str | None, typer.Option(help="Before this time, ISO 8601.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show who did what, the latest first."""
    wanted = {"executionId": execution_id, "actor": actor, "action": action, "after": after, "before": before}
    with open_api(api) as calls:
        found = calls.first(limit, "/audit", **wanted)
    if as_json:
        print_json(found)
        return
    print_table(
        ("at", "actor", "action", "execution", "result", "reason"),
        [
            (
                time_of_day(one["at"]),
                one["actor"],
                one["action"],
                one["executionId"],
                one["result"],
                one["reason"],
            )
            for one in found
        ],
        empty="nothing was done",
    )


def documents(**texts: str | None) -> dict[str, Any]:
    """The options that were given, read: an option of null is not one that was left out."""
    return {name: read_json(text) for name, text in texts.items() if text is not None}


def _given(text: str | None) -> Any:
    return None if text is None else read_json(text)


def _post(api: str | None, execution_id: str, path: str, body: dict[str, Any], key: str | None = None) -> Any:
    with open_api(api) as calls:
        return calls.post(f"/executions/{segment(execution_id)}/{path}", body, headers=acting(key))


def _say(answer: dict[str, Any], as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(answer)
        return
    out.print(sentence)
    if answer.get("statusReason"):
        print_fields({"reason": answer["statusReason"]})
