"""What the commands that change something have in common: a file with what is to change, options over it."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.api_client import read_json_object
from app.cli.output import out, print_json

ChangeFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="What is to change, as JSON; the rest stays.", show_default=False),
]


def changed(
    file: Path | None,
    options: Mapping[str, Any],
    cleared: Collection[str] = (),
    parts: Mapping[str, Mapping[str, Any]] | None = None,
    standing: Callable[[], Mapping[str, Any]] = dict,
    needed: str = "say what is to change: a FILE, or an option",
) -> dict[str, Any]:
    """What is to change: what the file says, and over it the options that are not None; `cleared` ones become null.

    `parts` are of members that are objects: they go over what the file says of the member, else over what is
    `standing`. Raises a mistake of usage, which says what is `needed`, when nothing is to change.
    """
    body = {} if file is None else read_json_object(file)
    body |= {name: value for name, value in options.items() if value is not None} | dict.fromkeys(cleared)
    for name, part in (parts or {}).items():
        if part:
            said = body.get(name)
            body[name] = {**(said if isinstance(said, dict) else standing().get(name) or {}), **part}
    if not body:
        raise typer.BadParameter(needed)
    return body


def print_gone(reference: str, said: str, as_json: bool) -> None:
    """Says that something is deleted."""
    if as_json:
        print_json({"deleted": reference})
    else:
        out.print(said)
