"""`millrace triggers …` and `millrace subscriptions …`: what there is to hear of, and who does."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, read_json, read_json_object, segment
from app.cli.changing import ChangeFile, changed, print_gone
from app.cli.output import AsJson, out, print_fields, print_json, print_table, time_of_day
from app.cli.steering import Key

triggers = typer.Typer(help="Kinds of events that templates can subscribe to.", no_args_is_help=True)
subscriptions = typer.Typer(help="Templates that hear of triggers.", no_args_is_help=True)

Trigger = Annotated[str, typer.Argument(metavar="KEY", help="The trigger's key.", show_default=False)]
Subscription = Annotated[str, typer.Argument(metavar="ID", help="The subscription's id.", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
Mode = Annotated[str | None, typer.Option(help="START, RESUME or START_OR_RESUME.")]
Signal = Annotated[str | None, typer.Option(help="The signal that events are handed over as.")]
CorrelationKey = Annotated[str | None, typer.Option(help="What names the execution to resume, as {{ body.id }}.")]
Payload = Annotated[str | None, typer.Option(help="The payload as JSON, or @FILE.")]


@triggers.command("list")
def list_triggers(
    source: Annotated[str | None, typer.Option(help="Only of this source, such as webhook.")] = None,
    category: Annotated[str | None, typer.Option(help="Only of this category, such as database.")] = None,
    text: Annotated[str | None, typer.Option(help="Only with this in key, name or description.")] = None,
    limit: Limit = 100,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List triggers by key."""
    with open_api(api) as calls:
        found = calls.first(limit, "/registry/triggers", source=source, category=category, text=text)
    if as_json:
        print_json(found)
        return
    rows = [(one["key"], one["name"], one["category"], one["source"]) for one in found]
    print_table(("key", "name", "category", "source"), rows, empty="no triggers")


@triggers.command("show")
def show_trigger(key: Trigger, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show a trigger: its form, a sample payload and what is in it."""
    with open_api(api) as calls:
        found = calls.get(f"/registry/triggers/{segment(key)}")
    if as_json:
        print_json(found)
        return
    _print_trigger(found)
    if found["variables"]:
        rows = [(one["path"], one["type"], one.get("description")) for one in found["variables"]]
        print_table(("variable", "type", "what it is"), rows)


@triggers.command("create")
def create_trigger(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON: key, name, category, source, properties …")],
    idempotency_key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Create a trigger."""
    document = read_json_object(file)
    with open_api(api) as calls:
        made = calls.post("/registry/triggers", document, headers=acting(idempotency_key))
    if as_json:
        print_json(made)
    else:
        _print_trigger(made)


@triggers.command("change")
def change_trigger(
    key: Trigger,
    file: ChangeFile = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    description: Annotated[str | None, typer.Option(help="What it means.")] = None,
    category: Annotated[str | None, typer.Option(help="Such as database.")] = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Change a trigger; what is left out stays, and subscriptions keep their properties."""
    body = changed(file, {"name": name, "description": description, "category": category})
    with open_api(api) as calls:
        found = calls.patch(f"/registry/triggers/{segment(key)}", body)
    if as_json:
        print_json(found)
    else:
        _print_trigger(found)


@triggers.command("options")
def list_options(
    key: Trigger,
    property_: Annotated[str | None, typer.Option("--property", help="The options of this property.")] = None,
    method: Annotated[str | None, typer.Option(help="The options that this method loads.")] = None,
    text: Annotated[str | None, typer.Option(help="Of a method: only those with this text.")] = None,
    values: Annotated[str | None, typer.Option(help="Of a method: what they depend on, as JSON, or @FILE.")] = None,
    limit: Limit = 100,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List what may be chosen for a property of a trigger."""
    if (property_ is None) == (method is None) or (method is None and (text or values) is not None):
        raise typer.BadParameter("name a --property, or a --method, which may have --text and --values")
    path = f"/registry/triggers/{segment(key)}"
    found: list[dict[str, Any]] = []
    token: str | None = None
    with open_api(api) as calls:
        while len(found) < limit:
            most = min(limit - len(found), 500)
            if method is None:
                page = calls.get(f"{path}/options", property=property_, paginationToken=token, limit=most)
            else:
                body: dict[str, Any] = {"method": method, "paginationToken": token, "limit": most}
                body |= {"values": read_json(values)} if values is not None else {}
                searched = {} if text is None else {"text": text}
                page = calls.post(f"{path}/{'load-options' if text is None else 'search'}", body | searched)
            found += page["results"]
            token = page["paginationToken"]
            if token is None:
                break
    if as_json:
        print_json(found)
        return
    rows = [(one["value"], one["name"], one["description"]) for one in found]
    print_table(("value", "name", "description"), rows, empty="no options")


@triggers.command("delete")
def delete_trigger(key: Trigger, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Delete a trigger that nothing subscribes to."""
    with open_api(api) as calls:
        calls.delete(f"/registry/triggers/{segment(key)}")
    print_gone(key, f"Trigger {key} is gone.", as_json)


@triggers.command("fire")
def fire(
    key: Trigger,
    payload: Payload = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what each subscription would do.")] = False,
    idempotency_key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make an event by hand, with the sample payload unless another is given."""
    body: dict[str, Any] = {"dryRun": dry_run} | ({} if payload is None else {"payload": read_json(payload)})
    headers = acting(idempotency_key)
    with open_api(api) as calls:
        answer = calls.post(f"/registry/triggers/{segment(key)}/test", body, headers=headers)
    if as_json:
        print_json(answer)
    elif not dry_run:
        out.print(f"Event {answer['eventRecordId']} is in the inbox.")
    else:
        print_table(
            ("subscription", "template", "status", "delivers", "why not"),
            [
                (one["subscriptionId"], one["template"], one["status"], _yes(one["delivers"]), _why_not(one))
                for one in answer["subscriptions"]
            ],
            empty="no subscriptions",
        )
        for one in answer["subscriptions"]:
            _warn(one["warnings"])


@subscriptions.command("list")
def list_subscriptions(
    template: Annotated[str | None, typer.Option(help="Only of this template, by slug or id.")] = None,
    trigger: Annotated[str | None, typer.Option(help="Only to the trigger with this key.")] = None,
    status: Annotated[str | None, typer.Option(help="ACTIVE or INACTIVE.")] = None,
    limit: Limit = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List subscriptions, the newest first."""
    with open_api(api) as calls:
        found = calls.first(limit, "/subscriptions", template=template, triggerKey=trigger, status=status)
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["template"], one["triggerKey"], one["mode"], one["status"], one["filterText"]) for one in found
    ]
    print_table(("id", "template", "trigger", "mode", "status", "filter"), rows, empty="no subscriptions")


@subscriptions.command("show")
def show_subscription(subscription_id: Subscription, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show a subscription."""
    with open_api(api) as calls:
        found = calls.get(f"/subscriptions/{segment(subscription_id)}")
    _answer(found, as_json)


@subscriptions.command("create")
def create_subscription(
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="A template's slug or id.")],
    key: Trigger,
    file: Annotated[
        Path | None, typer.Option("--file", help="JSON: filter, properties, context, name, mode, signal …")
    ] = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="The filter as JSON, or @FILE.")] = None,
    mode: Mode = None,
    signal: Signal = None,
    correlation_key: CorrelationKey = None,
    inactive: Annotated[bool, typer.Option("--inactive", help="It does not hear of events yet.")] = False,
    idempotency_key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let a template hear of a trigger."""
    body = {} if file is None else read_json_object(file)
    options = {"mode": mode and mode.upper(), "signal": signal, "correlationKey": correlation_key}
    body |= {name: value for name, value in options.items() if value is not None}
    if filter_ is not None:
        body["filter"] = read_json(filter_)
    if inactive:
        body["status"] = "INACTIVE"
    with open_api(api) as calls:
        body |= {"templateId": template, "triggerKey": key}
        made = calls.post("/subscriptions", body, headers=acting(idempotency_key))
    _answer(made, as_json)


@subscriptions.command("change")
def change_subscription(
    subscription_id: Subscription,
    file: ChangeFile = None,
    filter_: Annotated[str | None, typer.Option("--filter", help="The filter as JSON, or @FILE; or null.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    mode: Mode = None,
    signal: Signal = None,
    correlation_key: CorrelationKey = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Change a subscription; what is left out stays."""
    options = {"description": description, "mode": mode and mode.upper(), "signal": signal, "filter": filter_}
    options["correlationKey"] = correlation_key
    body = changed(file, options)
    if filter_ is not None:
        body["filter"] = read_json(filter_)
    with open_api(api) as calls:
        _answer(calls.patch(f"/subscriptions/{segment(subscription_id)}", body), as_json)


@subscriptions.command("activate")
def activate(subscription_id: Subscription, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Let a subscription hear of events."""
    with open_api(api) as calls:
        found = calls.post(f"/subscriptions/{segment(subscription_id)}/activate")
    _answer(found, as_json)


@subscriptions.command("deactivate")
def deactivate(subscription_id: Subscription, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Let a subscription rest."""
    with open_api(api) as calls:
        found = calls.post(f"/subscriptions/{segment(subscription_id)}/deactivate")
    _answer(found, as_json)


@subscriptions.command("delete")
def delete_subscription(subscription_id: Subscription, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Delete a subscription; what it has started goes on."""
    with open_api(api) as calls:
        calls.delete(f"/subscriptions/{segment(subscription_id)}")
    print_gone(subscription_id, f"Subscription {subscription_id} is gone.", as_json)


@subscriptions.command("explain")
def explain(
    subscription_id: Subscription,
    payload: Payload = None,
    event: Annotated[str | None, typer.Option(help="The id of an event in the inbox.")] = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say why a payload, or an event of the inbox, matches or not."""
    body = {} if payload is None else {"payload": read_json(payload)}
    with open_api(api) as calls:
        found = calls.post(
            f"/subscriptions/{segment(subscription_id)}/explain", body | ({"eventRecordId": event} if event else {})
        )
    if as_json:
        print_json(found)
        return
    out.print("It matches." if found["holds"] else "It does not match.")
    rows = [(one["property"], _yes(one["holds"]), None, None, one["reason"]) for one in found["properties"]]
    print_table(("condition", "holds", "left", "right", "why not"), rows + _conditions(found["filter"]))
    _warn([*([found["problem"]] if found["problem"] else []), *found["warnings"]])


def _conditions(finding: dict[str, Any]) -> list[tuple[Any, ...]]:
    if finding["parts"]:
        return [row for part in finding["parts"] for row in _conditions(part)]
    return [(finding["text"], _yes(finding["holds"]), finding["left"], finding["right"], finding["reason"])]


def _why_not(tested: dict[str, Any]) -> str | None:
    if tested["delivers"]:
        return None
    if tested.get("problem"):
        return str(tested["problem"]["message"])
    reasons = [f"{one['property']}: {one.get('reason')}" for one in tested["properties"] if not one["holds"]]
    if not tested["filter"]["holds"]:
        reasons.append(f"filter: {tested['filter']['text']}")
    return "; ".join(reasons) or "it or its template is not active"


def _answer(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    shown = ("id", "template", "triggerKey", "status", "mode", "signal", "description")
    print_fields({name: found[name] for name in shown} | {"filter": found["filterText"]})
    print_fields({name: found[name] for name in ("properties", "context", "name", "correlationKey")})
    _warn(found["warnings"])


def _warn(warnings: list[dict[str, Any]]) -> None:
    for warning in warnings:
        out.print(f"{warning['code']}: {warning['message']}")


def _print_trigger(found: dict[str, Any]) -> None:
    shown = ("key", "name", "description", "category", "source")
    print_fields({name: found[name] for name in shown} | {"changed": time_of_day(found["updatedAt"])})
    print_fields({"properties": found["properties"], "sample": found["samplePayload"]})


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
