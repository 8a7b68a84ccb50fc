"""What the steps of an open execution become in another version, as it is written on the command line."""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from app.cli.api_client import read_json_object
from app.errors import Invalid

Pairs = Annotated[list[str] | None, typer.Option("--map", help="OLD=NEW: what an open step has become.")]
MappingFile = Annotated[
    Path | None,
    typer.Option("--mapping", help="JSON: {mapping: {OLD: NEW}, overrides: {EXECUTION_ID: {mapping: {OLD: NEW}}}}."),
]

Mapping = dict[str, str]


def read_mappings(pairs: list[str] | None, file: Path | None) -> dict[str, Any]:
    """The default `mapping`, and the `overrides` of single executions: of the file, then `OLD=NEW` for each pair.

    Raises `Invalid` MAPPING_INVALID, FILE_NOT_READABLE, FILE_NOT_JSON.
    """
    given = {} if file is None else read_json_object(file)
    mapping, overrides = given.get("mapping", {}), given.get("overrides", {})
    if given.keys() - {"mapping", "overrides"} or not isinstance(mapping, dict) or not isinstance(overrides, dict):
        raise Invalid("MAPPING_INVALID", f"{file} is not {{mapping: {{}}, overrides: {{}}}}.")
    return {"mapping": mapping | _read_pairs(pairs), "overrides": overrides}


def mapping_of(execution_id: str, pairs: list[str] | None, file: Path | None) -> Any:
    """The mapping of one execution: the default with its override. Raises like `read_mappings`."""
    given = read_mappings(pairs, file)
    wanted = _as_id(execution_id)
    override: Any = next((one for name, one in given["overrides"].items() if _as_id(name) == wanted), {})
    own = override.get("mapping", {}) if isinstance(override, dict) else None
    if not isinstance(own, dict):
        raise Invalid("MAPPING_INVALID", f"The override of {execution_id} is not {{mapping: {{}}}}.")
    return given["mapping"] | own


def _as_id(text: str) -> UUID | str:
    """An id however it is written, as the service takes it; a text that is none stands for itself."""
    try:
        return UUID(text)
    except ValueError:
        return text


def _read_pairs(pairs: list[str] | None) -> Mapping:
    mapping = {}
    for pair in pairs or []:
        old, sign, new = pair.partition("=")
        if not (old and sign and new):
            raise Invalid("MAPPING_INVALID", f"A mapping is written OLD=NEW; this is {pair}.")
        mapping[old] = new
    return mapping
