"""`millrace executions bulk DEED`: one deed on all executions that the options describe."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, read_json
from app.cli.definitions import find_version_id
from app.cli.mappings import MappingFile, Pairs, read_mappings
from app.cli.output import AsJson, out, print_json, print_table
from app.cli.steering import Compensate, Detached, Key, Reason
from app.errors import Invalid

PAGE = 200


class BulkDeed(StrEnum):
    """What can be done to many."""

    CANCEL = "cancel"
    TERMINATE = "terminate"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"
    SIGNAL = "signal"
    MIGRATE = "migrate"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("bulk")(bulk)


def bulk(
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
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most, without --all.")] = 100,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which match.")] = False,
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

    Open ones are meant, for retry failed ones, unless a status or ids are given.
    """
    version_id, to_version = _version_ids(api, version_id, to_version)
    wanted: dict[str, Any] = {
        "template": template,
        "versionId": version_id,
        "status": status,
        "runtimeStatus": runtime_status,
        "rootId": root,
        "createdAfter": created_after,
        "createdBefore": created_before,
        "ids": ids or None,
        "rootOnly": False if children else None,
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    body = {"filter": wanted, "dryRun": dry_run, "limit": PAGE if everything else limit, "reason": reason}
    match deed:
        case BulkDeed.CANCEL:
            body |= {"compensate": compensate, "includeDetached": include_detached}
        case BulkDeed.SIGNAL:
            given = None if payload is None else read_json(payload)
            body |= {"name": _needed(signal, "--signal"), "payload": given, "correlationKey": correlation_key}
        case BulkDeed.MIGRATE:
            body |= {"versionId": _needed(to_version, "--to"), **read_mappings(pairs, mapping)}
    results = _call(api, deed, body, key, everything=everything)
    _print(results, as_json, dry_run=dry_run)
    if not all(one["ok"] for one in results):
        raise typer.Exit(1)


def _call(
    api: str | None, deed: BulkDeed, body: dict[str, Any], key: str | None, *, everything: bool
) -> list[dict[str, Any]]:
    headers = acting(key)
    results: list[dict[str, Any]] = []
    # Many calls that may each wait for a worker: longer than one alone.
    with open_api(api, timeout=600) as calls:
        while True:
            answer = calls.post(f"/executions/bulk/{deed}", body, headers=headers)
            results += answer["results"]
            if not everything or answer["nextCursor"] is None:
                return results
            body = {**body, "cursor": answer["nextCursor"]}


def _version_ids(api: str | None, *references: str | None) -> tuple[str | None, ...]:
    """Versions by their ids, where they are named; those named by `slug@1.2.0` are looked up."""
    if not any(references):
        return references
    with open_api(api) as calls:
        return tuple(None if one is None else find_version_id(calls, one) for one in references)


def _needed(value: str | None, option: str) -> str:
    if value is None:
        raise Invalid("OPTION_MISSING", f"This deed needs {option}.")
    return value


def _print(results: list[dict[str, Any]], as_json: bool, *, dry_run: bool) -> None:
    if as_json:
        print_json(results)
        return
    rows = [(one["executionId"], one["name"], one["result"], one["message"]) for one in results]
    print_table(("execution", "name", "result", "reason"), rows, empty="no execution matches")
    done = sum(one["ok"] for one in results)
    out.print(f"{len(results)} match." if dry_run else f"{done} of {len(results)} done.", style="dim")
