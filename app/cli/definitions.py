"""`validate`, `publish`, `activate`: from a file to a version that new executions run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.api_client import Api, ApiUrl, open_api, read_json_object, segment
from app.cli.output import AsJson, out, print_fields, print_json, print_problem, print_table, time_of_day
from app.errors import AppError, NotFound

versions = typer.Typer(help="The versions of templates.", no_args_is_help=True)

DefinitionFile = Annotated[Path, typer.Argument(metavar="FILE", help="A definition, as JSON.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("validate")(validate)
    app.command("publish")(publish)
    app.command("activate")(activate)


def validate(
    file: DefinitionFile,
    api: Annotated[
        str | None,
        typer.Option("--api", help="Check against what this API has stored, too.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find every problem of a definition.

    Without --api what depends on stored versions and registered actions is not checked.
    """
    document = read_json_object(file)
    problems = _found_by(api, document) if api else _found_here(document)
    errors, warnings, unchecked = (
        [problem for problem in problems if problem["severity"] == severity]
        for severity in ("ERROR", "WARNING", "NOT_CHECKED")
    )
    if as_json:
        print_json({"valid": not errors, "problems": problems})
    else:
        for problem in (*errors, *warnings):
            print_problem(problem)
        out.print(f"{file}: {len(errors)} error(s), {len(warnings)} warning(s)", soft_wrap=True)
        if unchecked:
            rules = ", ".join(sorted({problem["rule"] for problem in unchecked}))
            out.print(f"Not checked without --api: {rules}", style="dim", soft_wrap=True)
    if errors:
        raise typer.Exit(1)


def publish(
    file: DefinitionFile,
    slug: Annotated[str, typer.Option(help="The template's slug; it names the Temporal workflow type.")],
    version: Annotated[str, typer.Option(help="A semantic version, such as 1.2.0.")],
    name: Annotated[str | None, typer.Option(help="The name of a new template; by default its slug.")] = None,
    note: Annotated[str | None, typer.Option(help="What changed.")] = None,
    activate: Annotated[bool, typer.Option("--activate", help="New executions run it at once.")] = False,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Create the template if it is new, save the definition as a version, publish it.

    A draft with the same version is replaced; a published version never is.
    """
    document = read_json_object(file)
    with open_api(api) as calls:
        saved = publish_definition(calls, document, slug, version, name, note, activate)
    if as_json:
        print_json(saved)
        return
    for problem in saved.get("problems") or []:
        print_problem(problem)
    _print_version(saved)


def activate(
    slug: Annotated[str, typer.Argument(help="The template's slug or id.")],
    version: Annotated[str, typer.Argument(help="The version's number, such as 1.2.0, or its id.")],
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let new executions of a template run this version; running ones keep theirs."""
    with open_api(api) as calls:
        found = find_version(calls, slug, version)
        changed = calls.post(f"/versions/{found['id']}/activate")
    if as_json:
        print_json(changed)
    else:
        _print_version(changed)


@versions.command("list")
def list_versions(
    template: Annotated[str, typer.Argument(help="The template's slug or id.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    api: ApiUrl = None,
    as_json: AsJson = False,
) -> None:
    """List a template's versions, the newest first."""
    with open_api(api) as calls:
        found = calls.first(limit, f"/templates/{segment(template)}/versions")
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "version", "status", "active", "published", "note"),
        [
            (
                one["id"],
                one["version"],
                one["status"],
                "yes" if one["active"] else "no",
                time_of_day(one["publishedAt"]),
                one["versionNote"],
            )
            for one in found
        ],
        empty="no versions",
    )


def publish_definition(
    api: Api,
    document: dict[str, Any],
    slug: str,
    version: str,
    name: str | None = None,
    note: str | None = None,
    activate: bool = False,
) -> dict[str, Any]:
    """The published version as the API shows it. Raises `AppError` with the API's code."""
    try:
        api.get(f"/templates/{segment(slug)}")
    except AppError as error:
        if error.status != 404:
            raise
        api.post("/templates", {"slug": slug, "name": name or slug})
    draft = _save_draft(api, slug, version, document, note)
    published: dict[str, Any] = api.post(f"/versions/{draft['id']}/publish")
    if activate:
        problems = published.get("problems")
        published = {**api.post(f"/versions/{draft['id']}/activate"), "problems": problems}
    return published


def find_version(api: Api, slug: str, version: str) -> dict[str, Any]:
    """A version by its number or id. Raises `NotFound` VERSION_NOT_FOUND."""
    for found in api.pages(f"/templates/{segment(slug)}/versions"):
        if found["version"] == version or found["id"] == version.lower():
            return found
    raise NotFound("version", f"{version} of {slug}")


def find_version_id(api: Api, reference: str) -> str:
    """The id of a version named by `slug@1.2.0`; an id is taken as it is. Raises `NotFound` VERSION_NOT_FOUND."""
    slug, sign, number = reference.rpartition("@")
    return str(find_version(api, slug, number)["id"]) if sign else reference


def _save_draft(api: Api, slug: str, version: str, document: dict[str, Any], note: str | None) -> dict[str, Any]:
    content = {"definition": document, **({"versionNote": note} if note else {})}
    try:
        created: dict[str, Any] = api.post(f"/templates/{segment(slug)}/versions", {"version": version, **content})
    except AppError as error:
        if error.code != "VERSION_EXISTS":
            raise
        existing = find_version(api, slug, version)
        if existing["status"] != "DRAFT":
            raise
        changed: dict[str, Any] = api.patch(f"/versions/{existing['id']}", content)
        return changed
    return created


def _found_here(document: dict[str, Any]) -> list[dict[str, Any]]:
    from engine import validate as engine_validate

    return [
        {
            "rule": problem.rule,
            "code": problem.code,
            "severity": str(problem.severity),
            "path": problem.path,
            "message": problem.message,
            "stepIds": list(problem.step_ids),
            "transitionIds": list(problem.transition_ids),
        }
        for problem in engine_validate.validate(document, None)
    ]


def _found_by(url: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    with Api(url) as calls:
        problems: list[dict[str, Any]] = calls.post("/definitions/validate", {"definition": document})["problems"]
    return problems


def _print_version(version: dict[str, Any]) -> None:
    print_fields(
        {
            "template": version["template"],
            "version": version["version"],
            "status": version["status"],
            "active": "yes" if version["active"] else "no",
            "id": version["id"],
        }
    )
