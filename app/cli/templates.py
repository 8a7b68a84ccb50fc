"""`millrace templates …`: what can be started, how many at once, and what becomes of it while it rests."""

from typing import Annotated, Any

import typer

from app.cli.api_client import ApiUrl, acting, open_api, segment
from app.cli.changing import ChangeFile, changed, print_gone
from app.cli.output import AsJson, print_fields, print_json, print_table, time_of_day
from app.cli.steering import Key

app = typer.Typer(help="Templates: what can be started.", no_args_is_help=True)

Template = Annotated[str, typer.Argument(metavar="TEMPLATE", help="A template's slug or id.", show_default=False)]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Category = Annotated[str | None, typer.Option(help="What people find it under.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")]
WhenPaused = Annotated[
    str | None, typer.Option(help="REFUSE or QUEUE: what becomes of what would start it while it is paused.")
]
PerMinute = Annotated[int | None, typer.Option(min=1, help="How many of its executions may start in a minute.")]
Open = Annotated[int | None, typer.Option(min=1, help="How many of its executions may be open at once.")]
WhenFull = Annotated[
    str | None, typer.Option(help="REFUSE or QUEUE: what becomes of what would start more than its limits allow.")
]


@app.command("list")
def list_templates(
    status: Annotated[str | None, typer.Option(help="DRAFT, ACTIVE, PAUSED or ARCHIVED.")] = None,
    segment_: Annotated[str | None, typer.Option("--segment", help="Only of this segment.")] = None,
    category: Annotated[str | None, typer.Option(help="Only of this category.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    text: Annotated[str | None, typer.Option(help="Only with this in name, slug or description.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List templates, the newest first."""
    wanted = {"status": status, "segment": segment_, "category": category, "tag": tag, "text": text}
    with open_api(api) as calls:
        found = calls.first(limit, "/templates", **wanted)
    if as_json:
        print_json(found)
        return
    rows = [
        (one["slug"], one["name"], one["status"], one["activeVersion"], one["whenPaused"], _limits(one["limits"]))
        for one in found
    ]
    print_table(("slug", "name", "status", "active version", "when paused", "limits"), rows, empty="no templates")


@app.command("show")
def show(template: Template, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Show a template."""
    with open_api(api) as calls:
        _print(calls.get(_path(template)), as_json)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What people call it.", show_default=False)],
    file: ChangeFile = None,
    slug: Annotated[str | None, typer.Option(help="The Temporal workflow type; made of the name.")] = None,
    description: Description = None,
    segment_: Annotated[str | None, typer.Option("--segment", help="Such as CRM.")] = None,
    category: Category = None,
    tag: Tag = None,
    when_paused: WhenPaused = None,
    starts_per_minute: PerMinute = None,
    open_executions: Open = None,
    when_full: WhenFull = None,
    key: Key = None,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Create a template, without versions yet; `millrace publish` gives it one."""
    options = _options(name, slug, description, segment_, category, tag, when_paused)
    body = changed(file, options, (), {"limits": _given_limits(starts_per_minute, open_executions, when_full)})
    with open_api(api) as calls:
        _print(calls.post("/templates", body, headers=acting(key)), as_json)


@app.command("change")
def change(
    template: Template,
    file: ChangeFile = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    slug: Annotated[str | None, typer.Option(help="Until a version is published.")] = None,
    description: Description = None,
    segment_: Annotated[str | None, typer.Option("--segment", help="Such as CRM.")] = None,
    category: Category = None,
    tag: Tag = None,
    when_paused: WhenPaused = None,
    starts_per_minute: PerMinute = None,
    open_executions: Open = None,
    when_full: WhenFull = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Take its limits away.")] = False,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Change a template; of its limits, too, what is left out stays."""
    limits = _given_limits(starts_per_minute, open_executions, when_full)
    if limits and no_limits:
        raise typer.BadParameter("--no-limits takes away what the other options set")
    options = _options(name, slug, description, segment_, category, tag, when_paused)
    with open_api(api) as calls:
        cleared = ["limits"] if no_limits else []
        body = changed(file, options, cleared, {"limits": limits}, lambda: calls.get(_path(template)))
        _print(calls.patch(_path(template), body), as_json)


@app.command("pause")
def pause(template: Template, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Let nothing new start, or wait, as --when-paused says; what runs goes on."""
    _turn(template, "pause", api, as_json)


@app.command("resume")
def resume(template: Template, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Let a paused or archived template start again."""
    _turn(template, "resume", api, as_json)


@app.command("archive")
def archive(template: Template, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Let nothing new start, and nothing be edited; what runs goes on."""
    _turn(template, "archive", api, as_json)


@app.command("delete")
def delete(template: Template, api: ApiUrl = None, as_json: AsJson = False) -> None:
    """Delete a template that has no executions, with its versions and links."""
    with open_api(api) as calls:
        calls.delete(_path(template))
    print_gone(template, f"Template {template} is gone.", as_json)


def _options(
    name: str | None,
    slug: str | None,
    description: str | None,
    segment_: str | None,
    category: str | None,
    tags: list[str] | None,
    when_paused: str | None,
) -> dict[str, Any]:
    return {
        "name": name,
        "slug": slug,
        "description": description,
        "segment": segment_,
        "category": category,
        "tags": tags or None,
        "whenPaused": when_paused and when_paused.upper(),
    }


def _given_limits(starts_per_minute: int | None, open_executions: int | None, when_full: str | None) -> dict[str, Any]:
    given = {
        "startsPerMinute": starts_per_minute,
        "openExecutions": open_executions,
        "whenFull": when_full and when_full.upper(),
    }
    return {name: value for name, value in given.items() if value is not None}


def _turn(template: str, deed: str, api: str | None, as_json: bool) -> None:
    with open_api(api) as calls:
        _print(calls.post(f"{_path(template)}/{deed}"), as_json)


def _path(template: str) -> str:
    return f"/templates/{segment(template)}"


def _limits(limits: dict[str, Any] | None) -> str | None:
    if limits is None:
        return None
    parts = []
    if limits["startsPerMinute"] is not None:
        parts.append(f"{limits['startsPerMinute']} starts a minute")
    if limits["openExecutions"] is not None:
        parts.append(f"{limits['openExecutions']} open")
    return f"{', '.join(parts)}; {limits['whenFull']} when full"


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_fields(
        {
            "id": found["id"],
            "slug": found["slug"],
            "name": found["name"],
            "description": found["description"],
            "segment": found["segment"],
            "category": found["category"],
            "tags": ", ".join(found["tags"]),
            "status": found["status"],
            "active version": found["activeVersion"],
            "when paused": found["whenPaused"],
            "limits": _limits(found["limits"]),
            "changed": time_of_day(found["updatedAt"]),
        }
    )
