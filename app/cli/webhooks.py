"""`millrace webhooks …`: addresses at which events come in."""

import secrets
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, read_json_object, segment
from app.cli.changing import ChangeFile, changed, print_gone
from app.cli.output import AsJson, print_fields, print_json, print_table, time_of_day
from app.cli.steering import Key
from app.errors import Invalid

app = typer.Typer(help="Addresses at which events come in.", no_args_is_help=True)

EndpointId = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id.", show_default=False)]
SecretFile = Annotated[
    typer.FileText | None,
    typer.Option("--secret-file", help="Where the secret is; - is standard input.", show_default=False),
]
Generate = Annotated[bool, typer.Option("--generate-secret", help="Make a secret, and print it this once.")]


@app.command("list")
def list_endpoints(
    trigger: Annotated[str | None, typer.Option(help="Only those of this trigger.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List endpoints, the newest first."""
    with open_api(api) as calls:
        found = calls.first(limit, "/webhook-endpoints", triggerKey=trigger)
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "name", "address", "methods", "scheme", "secret", "trigger", "on", "received", "refused", "last"),
        [
            (
                one["id"],
                one["name"],
                one["address"],
                ", ".join(one["methods"]),
                one["verification"]["scheme"],
                "yes" if one["secretSet"] else "no",
                one["triggerKey"],
                "yes" if one["enabled"] else "no",
                one["deliveries"]["received"],
                sum(one["deliveries"]["refused"].values()),
                time_of_day(one["deliveries"]["lastAt"]),
            )
            for one in found
        ],
        empty="no endpoints",
    )


@app.command("show")
def show(endpoint_id: EndpointId, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show an endpoint, and what became of what came in at it."""
    with open_api(api) as calls:
        found = calls.get(f"/webhook-endpoints/{segment(endpoint_id)}")
    _print(found, as_json)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What people call it.", show_default=False)],
    path: Annotated[str, typer.Argument(help="orders, orders/{id}, shop-*/orders, git/**.", show_default=False)],
    scheme: Annotated[
        str, typer.Option(help="STANDARD, GITHUB, STRIPE, SLACK, HMAC, TOKEN or NONE.", show_default=False)
    ],
    method: Annotated[list[str] | None, typer.Option(help="POST unless you say; may be repeated.")] = None,
    trigger: Annotated[str | None, typer.Option(help="The key of its events; made of the path.")] = None,
    template: Annotated[str | None, typer.Option(help="A template's slug or id, to start outright.")] = None,
    secret_file: SecretFile = None,
    generate: Generate = False,
    file: Annotated[Path | None, typer.Option(help="JSON with further fields of the endpoint.")] = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Create an endpoint. Until it has a secret, where its scheme needs one, it refuses everything."""
    body = {} if file is None else read_json_object(file)
    verification = body.get("verification") if isinstance(body.get("verification"), dict) else {}
    body |= {"name": name, "path": path, "verification": {**(verification or {}), "scheme": scheme.upper()}}
    given = {"methods": method and [one.upper() for one in method], "triggerKey": trigger, "templateId": template}
    body |= {field: value for field, value in given.items() if value}
    secret = _secret(secret_file, generate, scheme.upper())
    with open_api(api) as calls:
        endpoint = calls.post("/webhook-endpoints", body | ({"secret": secret} if secret else {}), headers=acting(key))
    _print(endpoint | ({"secret": secret} if generate else {}), as_json)


@app.command("change")
def change(
    endpoint_id: EndpointId,
    file: ChangeFile = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    path: Annotated[str | None, typer.Option(help="Where it is, below /hooks.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Instead of its methods; may be repeated.")] = None,
    trigger: Annotated[str | None, typer.Option(help="The key of its events.")] = None,
    template: Annotated[str | None, typer.Option(help="A template's slug or id, to start outright.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it takes anything.")] = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Change an endpoint; what is left out stays. `rotate` replaces its secret."""
    options = {
        "name": name,
        "path": path,
        "methods": [one.upper() for one in method] if method else None,
        "triggerKey": trigger,
        "templateId": template,
        "enabled": enabled,
    }
    body = changed(file, options)
    with open_api(api) as calls:
        _print(calls.patch(f"/webhook-endpoints/{segment(endpoint_id)}", body), as_json)


@app.command("rotate")
def rotate(
    endpoint_id: EndpointId,
    secret_file: SecretFile = None,
    generate: Generate = False,
    keep: Annotated[str, typer.Option(help="How long the secret until now stays good, ISO 8601.")] = "P1D",
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Replace an endpoint's secret; both are good for a while."""
    path = f"/webhook-endpoints/{segment(endpoint_id)}"
    with open_api(api) as calls:
        scheme = calls.get(path)["verification"]["scheme"]
        secret = _secret(secret_file, generate, scheme)
        if secret is None:
            raise Invalid("SECRET_MISSING", "Name the secret's file with --secret-file, or use --generate-secret.")
        request = {"secret": secret, "keepPreviousFor": keep}
        endpoint = calls.post(f"{path}/rotate-secret", request, headers=acting(key))
    _print(endpoint | ({"secret": secret} if generate else {}), as_json)


@app.command("delete")
def delete(endpoint_id: EndpointId, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Delete an endpoint; its events and its trigger stay."""
    with open_api(api) as calls:
        calls.delete(f"/webhook-endpoints/{segment(endpoint_id)}")
    print_gone(endpoint_id, f"Endpoint {endpoint_id} is gone.", as_json)


def _secret(file: typer.FileText | None, generate: bool, scheme: str) -> str | None:
    """The secret of the file, or a new one: never an argument, which every user of the machine could see."""
    if file is not None and generate:
        raise Invalid("SECRET_AMBIGUOUS", "A secret is read or made, not both.")
    if generate:
        made = secrets.token_bytes(32)
        return f"whsec_{b64encode(made).decode()}" if scheme == "STANDARD" else made.hex()
    return None if file is None else file.read().strip()


def _print(endpoint: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(endpoint)
        return
    counts = endpoint["deliveries"]
    print_fields(
        {
            "id": endpoint["id"],
            "name": endpoint["name"],
            "address": endpoint["address"],
            "methods": ", ".join(endpoint["methods"]),
            "enabled": "yes" if endpoint["enabled"] else "no",
            "verification": endpoint["verification"],
            "secret set": "yes" if endpoint["secretSet"] else "no",
            "previous secret until": time_of_day(endpoint["previousSecretUntil"]),
            "secret, shown this once": endpoint.get("secret"),
            "required headers": {
                name: "with its value" if demanded else "with any value"
                for name, demanded in endpoint["requiredHeaders"].items()
            },
            "most bytes": endpoint["maxBytes"],
            "rate limit": endpoint["rateLimit"],
            "response": endpoint["response"],
            "trigger": endpoint["triggerKey"],
            "template": endpoint["template"],
            "dedupe": endpoint["dedupe"],
            "accepted": counts["accepted"],
            "repeated": counts["repeated"],
            "refused": counts["refused"],
            "last": time_of_day(counts["lastAt"]),
            "last result": counts["lastResult"],
        }
    )
