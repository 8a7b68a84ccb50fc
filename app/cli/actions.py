"""`millrace actions`: what steps can call, and how their steps run."""

import typer

from app.cli.api_client import ApiUrl, open_api
from app.cli.output import AsJson, print_json, print_table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("actions")(actions)


def actions(api: ApiUrl = None, as_json: AsJson = False) -> None:
    """List the actions that workers have announced, with what they declare."""
    with open_api(api) as calls:
        found = calls.get("/registry/actions")["items"]
    if as_json:
        print_json(found)
        return
    rows = []
    for one in found:
        declared = one["policies"]
        expected = declared.get("expectedDuration")
        rows.append(
            (
                one["key"],
                one["version"],
                "yes" if declared.get("idempotent") else "no",
                None if expected is None else f"{expected:g} s",
                _runs(declared),
                one.get("description"),
            )
        )
    print_table(("key", "version", "idempotent", "expected", "steps run", "description"), rows, empty="no actions")


def _runs(declared: dict[str, object]) -> str:
    if declared.get("long"):
        return "with heartbeats"
    return "locally" if declared.get("local") else "as activities"
