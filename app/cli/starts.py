"""`link`, `trigger`, `execute`: what starts executions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.api_client import Api, ApiUrl, acting, open_api, read_json_object, segment
from app.cli.output import AsJson, out, print_fields, print_json
from app.errors import Invalid

PayloadFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="The event as JSON; it becomes the context.", show_default=False),
]
Event = Annotated[str | None, typer.Option("--event", help="The event's id; by default the one in the file.")]
Entity = Annotated[str | None, typer.Option("--entity", help="The linked id; by default the one in the file.")]
ExecutionName = Annotated[str | None, typer.Option("--name", help="The execution's name.")]

trigger = typer.Typer(help="Send an event that starts the linked template's active version.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("link")(link)
    app.command("execute")(execute)
    app.add_typer(trigger, name="trigger")


def link(
    entity_type: Annotated[str, typer.Argument(help="SERVICE_CATALOG or PRODUCT.")],
    entity_id: Annotated[str, typer.Argument(help="The service code or the product's id.")],
    slug: Annotated[str, typer.Argument(help="The template that it starts.")],
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Link a service or a product to the template that it starts."""
    with open_api(api) as calls:
        linked = calls.put(f"/links/{segment(entity_type)}/{segment(entity_id)}", {"templateId": slug})
    if as_json:
        print_json(linked)
    else:
        out.print(f"{linked['entityType']} {linked['entityId']} starts {linked['template']}.")


@trigger.command("service-request")
def service_request(
    file: PayloadFile,
    event: Event = None,
    entity: Entity = None,
    name: ExecutionName = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """A service request, as the Open311 GeoReport API shows it."""
    document = read_json_object(file)
    event = event or _text_at(document, "service_request_id")
    entity = entity or _text_at(document, "service_code")
    _send("/triggers/service-requests", document, event, entity, name, api, as_json)


@trigger.command("product-purchase")
def product_purchase(
    file: PayloadFile,
    event: Event = None,
    entity: Entity = None,
    name: ExecutionName = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """A purchase, as Stripe's checkout.session.completed event tells it, the product in its metadata."""
    document = read_json_object(file)
    event = event or _text_at(document, "id")
    entity = entity or _text_at(document, "data", "object", "metadata", "product_id")
    _send("/triggers/product-purchases", document, event, entity, name, api, as_json)


def execute(
    slug: Annotated[str, typer.Argument(help="The template's slug or id.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The context, as JSON.", show_default=False)
    ] = None,
    name: ExecutionName = None,
    version: Annotated[str | None, typer.Option(help="A published version; by default the active one.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key starts nothing twice.")] = None,
    wait: Annotated[float | None, typer.Option(help="Seconds to wait for the output.", min=0.1)] = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Start an execution by hand. With --wait, an execution that fails in that time leaves with 1."""
    body: dict[str, Any] = {"context": read_json_object(file) if file else {}}
    body |= {field: value for field, value in (("name", name), ("version", version)) if value}
    with open_api(api) as calls:
        started = calls.post(
            f"/templates/{segment(slug)}/execute",
            body,
            query={"wait": f"PT{wait:g}S"} if wait else None,
            headers=acting(key),
        )
    _print_started(started, as_json)
    if started.get("runtimeStatus") in {"FAILED", "CANCELLED", "TERMINATED", "TIMED_OUT"}:
        raise typer.Exit(1)


def send_event(
    api: Api, path: str, context: dict[str, Any], event: str, entity: str, name: str | None = None
) -> dict[str, Any]:
    """What a trigger endpoint answers: `{executionId, status}`, or `{matched: false}` without a link."""
    body = {"eventId": event, "entityId": entity, "context": context, **({"name": name} if name else {})}
    answer: dict[str, Any] = api.post(path, body)
    return answer


def _send(
    path: str,
    context: dict[str, Any],
    event: str | None,
    entity: str | None,
    name: str | None,
    api: str | None,
    as_json: bool,
) -> None:
    if not event or not entity:
        missing = "--event" if not event else "--entity"
        raise Invalid("EVENT_INCOMPLETE", f"The file does not say it, so it is needed as an option: {missing}.")
    with open_api(api) as calls:
        answer = send_event(calls, path, context, event, entity, name)
    if not as_json and answer.get("matched") is False:
        out.print(f"Nothing is linked to {entity}; nothing was started.")
        return
    _print_started(answer, as_json)


def _print_started(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    print_fields(
        {
            "execution": answer.get("executionId"),
            "status": answer.get("status"),
            "reason": answer.get("statusReason"),
            "runtime status": answer.get("runtimeStatus"),
            "output": answer.get("output"),
            "error": answer.get("error"),
            "problem": answer.get("problem"),
            "event": None if answer.get("executionId") else answer.get("eventRecordId"),
        }
    )


def _text_at(document: Any, *path: str) -> str | None:
    for member in path:
        document = document.get(member) if isinstance(document, dict) else None
    return str(document) if isinstance(document, str | int) and document != "" else None
