"""`millrace executions bulk DEED`: one deed on all executions that the options describe."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api
from app.cli.definitions import find_version_id
from app.cli.mappings import MappingFile, Pairs, read_mappings
from app.cli.output import AsJson, out, print_json, print_table
from app.cli.steering import Compensate, Detached, Item, Key, Reason, Visit, documents
from app.errors import Invalid

PAGE = 200
FIRST = 100


class BulkDeed(StrEnum):
    """What can be done to many."""

    CANCEL = "cancel"
    TERMINATE = "terminate"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    SIGNAL = "signal"
    MIGRATE = "migrate"
    REPLAY = "replay"
    RESUME_FROM = "resume-from"
    SKIP_TIMER = "skip-timer"
    RESUME_STEP = "resume-step"
    INCIDENT = "incident"


_PLACE = frozenset({"step", "visit", "item"})
# Which of the options that only some deeds take each of them takes.
_TAKEN = {
    BulkDeed.CANCEL: frozenset({"compensate", "include_detached"}),
    BulkDeed.SIGNAL: frozenset({"signal", "payload", "correlation_key"}),
    BulkDeed.MIGRATE: frozenset({"to_version", "pairs", "mapping"}),
    BulkDeed.REPLAY: frozenset({"name"}),
    BulkDeed.RESUME_FROM: _PLACE | {"context", "output"},
    BulkDeed.SKIP_TIMER: _PLACE,
    BulkDeed.RESUME_STEP: _PLACE | {"data"},
    BulkDeed.INCIDENT: _PLACE | {"action", "parameters", "output"},
}
_TAKEN_BY_SOME = frozenset().union(*_TAKEN.values())


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("bulk")(bulk)


def bulk(
    call: typer.Context,
    deed: Annotated[BulkDeed, typer.Argument(help="What is to be done.", show_default=False)],
    template: Annotated[str | None, typer.Option(help="A template's slug or id.")] = None,
    version_id: Annotated[str | None, typer.Option("--version", help="A version: slug@1.2.0, or its id.")] = None,
    status: Annotated[str | None, typer.Option(help="CREATED, STARTED, FAILED_TO_START or COMPLETED.")] = None,
    runtime_status: Annotated[str | None, typer.Option(help="IN_PROGRESS, FAILED, CANCELLED …")] = None,
    root: Annotated[str | None, typer.Option(help="Only this root and its descendants.")] = None,
    created_after: Annotated[str | None, typer.Option(help="ISO 8601, with its zone.")] = None,
    created_before: Annotated[str | None, typer.Option(help="ISO 8601, with its zone.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="An execution's id; may be repeated.")] = None,
    children: Annotated[bool, typer.Option("--children", help="Children too, not only roots.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All that match, not only the first ones.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, max=1_000, help=f"How many at most, {FIRST} without --all.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which match.")] = False,
    step: Annotated[str | None, typer.Option(help="A step's id, where one is meant.")] = None,
    visit: Visit = None,
    item: Item = None,
    action: Annotated[str | None, typer.Option(help="incident: retry, complete or fail.")] = None,
    parameters: Annotated[str | None, typer.Option(help="incident: retry with these instead, JSON or @FILE.")] = None,
    output: Annotated[str | None, typer.Option(help="incident, resume-from: an output, JSON or @FILE.")] = None,
    context: Annotated[str | None, typer.Option(help="resume-from: the context to go on with, JSON or @FILE.")] = None,
    data: Annotated[str | None, typer.Option(help="resume-step: what the action is told, JSON or @FILE.")] = None,
    name: Annotated[str | None, typer.Option(help="replay: the name of the new executions.")] = None,
    compensate: Compensate = True,
    include_detached: Detached = False,
    signal: Annotated[str | None, typer.Option(help="signal: its name.")] = None,
    payload: Annotated[str | None, typer.Option(help="signal: its payload, JSON or @FILE.")] = None,
    correlation_key: Annotated[str | None, typer.Option(help="signal: which of several that wait.")] = None,
    to_version: Annotated[str | None, typer.Option("--to", help="migrate: the version, slug@1.2.0 or its id.")] = None,
    pairs: Pairs = None,
    mapping: MappingFile = None,
    reason: Reason = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Do something to all executions that match. Leaves with 1 when any refuses.

    Open ones are meant, for retry, replay and resume-from failed ones, unless a status or ids are given; for incident
    those that are parked at the step.
    """
    said = locals()
    _refuse_misplaced(call, deed)
    if everything and limit is not None:
        raise Invalid("OPTION_MISPLACED", "--all means all that match: it does not go with --limit.")
    said["version_id"], said["to_version"] = _version_ids(api, version_id, to_version)
    at_most = PAGE if everything else limit or FIRST
    body = {"filter": _filter(said), "dryRun": dry_run, "limit": at_most, "reason": reason}
    results, more = _call(api, deed, body | _what_more(deed, said), key, everything=everything)
    _print(results, as_json, dry_run=dry_run, more=more)
    if not all(one["ok"] for one in results):
        raise typer.Exit(1)


def _refuse_misplaced(call: typer.Context, deed: BulkDeed) -> None:
    """Raises OPTION_MISPLACED: whoever names a step does not mean to do something to whole executions."""
    for option in call.command.params:
        name = str(option.name)
        source = call.get_parameter_source(name)
        is_said = source is not None and source.name == "COMMANDLINE"
        if is_said and name in _TAKEN_BY_SOME - _TAKEN.get(deed, frozenset()):
            raise Invalid("OPTION_MISPLACED", f"{option.opts[0]} is not for {deed}.")


def _filter(said: dict[str, Any]) -> dict[str, Any]:
    wanted = {
        "template": said["template"],
        "versionId": said["version_id"],
        "status": said["status"],
        "runtimeStatus": said["runtime_status"],
        "rootId": said["root"],
        "createdAfter": said["created_after"],
        "createdBefore": said["created_before"],
        "ids": said["ids"] or None,
        "rootOnly": False if said["children"] else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _what_more(deed: BulkDeed, said: dict[str, Any]) -> dict[str, Any]:
    """What the deed itself takes. Raises OPTION_MISSING."""
    match deed:
        case BulkDeed.CANCEL:
            return {"compensate": said["compensate"], "includeDetached": said["include_detached"]}
        case BulkDeed.SIGNAL:
            signal = {"name": _needed(said, "signal"), "correlationKey": said["correlation_key"]}
            return signal | documents(payload=said["payload"])
        case BulkDeed.MIGRATE:
            return {"versionId": _needed(said, "to_version"), **read_mappings(said["pairs"], said["mapping"])}
        case BulkDeed.REPLAY:
            return {"name": said["name"]}
        case BulkDeed.INCIDENT:
            resolution = {"action": _needed(said, "action")}
            return _place(said) | resolution | documents(parameters=said["parameters"], output=said["output"])
        case BulkDeed.RESUME_FROM:
            return _place(said) | documents(context=said["context"], output=said["output"])
        case BulkDeed.RESUME_STEP:
            return _place(said) | documents(data=said["data"])
        case BulkDeed.SKIP_TIMER:
            return _place(said)
        case _:
            return {}


def _place(said: dict[str, Any]) -> dict[str, Any]:
    place = {"stepId": _needed(said, "step"), "visit": said["visit"], "item": said["item"]}
    return {name: value for name, value in place.items() if value is not None}


def _call(
    api: str | None, deed: BulkDeed, body: dict[str, Any], key: str | None, *, everything: bool
) -> tuple[list[dict[str, Any]], bool]:
    """The results, and whether executions that match were not reached."""
    headers = acting(key)
    results: list[dict[str, Any]] = []
    # Many calls that may each wait for a worker: longer than one alone.
    with open_api(api, timeout=600) as calls:
        while True:
            answer = calls.post(f"/executions/bulk/{deed}", body, headers=headers)
            results += answer["results"]
            if not everything or answer["nextCursor"] is None:
                return results, answer["nextCursor"] is not None
            body = {**body, "cursor": answer["nextCursor"]}


def _version_ids(api: str | None, *references: str | None) -> tuple[str | None, ...]:
    """Versions by their ids, where they are named; those named by `slug@1.2.0` are looked up."""
    if not any(references):
        return references
    with open_api(api) as calls:
        return tuple(None if one is None else find_version_id(calls, one) for one in references)


def _needed(said: dict[str, Any], name: str) -> str:
    value = said[name]
    if value is None:
        raise Invalid("OPTION_MISSING", f"This deed needs --{name.removesuffix('_version')}.")
    return str(value)


def _print(results: list[dict[str, Any]], as_json: bool, *, dry_run: bool, more: bool) -> None:
    if as_json:
        print_json(results)
        return
    rows = [(one["executionId"], one["name"], one["result"], one["message"] or one["replayId"]) for one in results]
    print_table(("execution", "name", "result", "reason or replay"), rows, empty="no execution matches")
    done = sum(one["ok"] for one in results)
    told = f"{len(results)} match" if dry_run else f"{done} of {len(results)} done"
    out.print(f"{told}, and there are more: --all reaches them." if more else f"{told}.", style="dim")
