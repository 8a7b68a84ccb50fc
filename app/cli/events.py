"""`millrace events …`: the inbox."""

from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, segment
from app.cli.output import AsJson, print_fields, print_json, print_table, time_of_day
from app.cli.steering import Key

events = typer.Typer(help="What came in, and what became of it.", no_args_is_help=True)

EventId = Annotated[str, typer.Argument(metavar="ID", help="The event's id in the inbox.", show_default=False)]


@events.command("list")
def list_events(
    source: Annotated[str | None, typer.Option(help="service-request, webhook, row-change …")] = None,
    trigger: Annotated[str | None, typer.Option(help="The key of a trigger.")] = None,
    status: Annotated[str | None, typer.Option(help="PENDING, HANDLED or UNMATCHED.")] = None,
    refused: Annotated[bool | None, typer.Option(help="Only those that a target refused, or only the others.")] = None,
    entity_type: Annotated[str | None, typer.Option(help="SERVICE_CATALOG or PRODUCT.")] = None,
    entity_id: Annotated[str | None, typer.Option(help="The entity that they are about.")] = None,
    execution: Annotated[str | None, typer.Option(help="Those that started or resumed this execution.")] = None,
    received_after: Annotated[str | None, typer.Option(help="Only those received after this time, ISO 8601.")] = None,
    received_before: Annotated[str | None, typer.Option(help="Only those received before this time, ISO 8601.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List events, the newest first."""
    wanted = {
        "source": source,
        "triggerKey": trigger,
        "status": status,
        "refused": None if refused is None else str(refused).lower(),
        "entityType": entity_type,
        "entityId": entity_id,
        "executionId": execution,
        "receivedAfter": received_after,
        "receivedBefore": received_before,
    }
    with open_api(api) as calls:
        found = calls.first(limit, "/trigger-events", **wanted)
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "received", "times", "summary", "status", "deliveries"),
        [
            (
                one["id"],
                time_of_day(one["receivedAt"]),
                one["times"],
                one["summary"],
                one["status"],
                _in_short(one["deliveries"]),
            )
            for one in found
        ],
        empty="no events",
    )


@events.command("show")
def show_event(event_id: EventId, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show an event: what it brought, and what became of it."""
    with open_api(api) as calls:
        _print_event(calls.get(f"/trigger-events/{segment(event_id)}"), as_json)


@events.command("redeliver")
def redeliver(event_id: EventId, key: Key = None, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Try again what was refused, and what nothing wanted; what was started is never started again."""
    with open_api(api) as calls:
        _print_event(calls.post(f"/trigger-events/{segment(event_id)}/redeliver", None, headers=acting(key)), as_json)


def _print_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(event)
        return
    print_fields(
        {
            "id": event["id"],
            "summary": event["summary"],
            "source": event["source"],
            "trigger": event["triggerKey"],
            "key": event["dedupeKey"],
            "status": event["status"],
            "received": f"{time_of_day(event['receivedAt'])} ({event['times']} times)",
            "payload": event["payload"],
            "headers": event["headers"],
        }
    )
    print_table(
        ("target", "template", "status", "execution", "code", "message", "attempts", "due"),
        [
            (
                one["target"],
                one["template"],
                one["status"],
                one["executionId"],
                one["code"],
                one["message"],
                one["attempts"],
                time_of_day(one["dueAt"]),
            )
            for one in event["deliveries"]
        ],
        empty="nothing wanted it",
    )


def _in_short(deliveries: list[dict[str, Any]]) -> str:
    """`STARTED 2, REFUSED 1 (TEMPLATE_PAUSED)`."""
    parts = []
    for status in dict.fromkeys(one["status"] for one in deliveries):
        codes = sorted({one["code"] for one in deliveries if one["status"] == status and one["code"]})
        count = sum(one["status"] == status for one in deliveries)
        parts.append(f"{status} {count}" + (f" ({', '.join(codes)})" if codes else ""))
    return ", ".join(parts)
