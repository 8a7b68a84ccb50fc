"""What can be known of the tables that options are read from when a form is saved; its users would find it out else."""

from collections.abc import Iterator, Sequence
from typing import Final

from app.connections.failures import PASSING, judged
from app.connections.opening import Connections
from app.connections.selecting import rows_of_select
from app.errors import AppError
from app.forms.checking import Fault
from app.forms.fields import (
    ChoiceField,
    CollectionField,
    DatabaseSource,
    FixedCollectionField,
    FormField,
    LocatorField,
)
from app.forms.reading import form_invalid
from app.registry.option_rows import Asked, check_readable, read_table, selected
from app.subscriptions.schemas import Warned

# Seconds that somebody who saves a form waits for each database.
WITHIN: Final = 5.0


async def judge_sources(connections: Connections, form: Sequence[FormField], path: str = "properties") -> list[Warned]:
    """What could not be found out because a database is away just now.

    Raises PROPERTY_FORM_INVALID for connections, tables and columns that are not there or not for reading.
    """
    faults: list[Fault] = []
    away: dict[str, Warned] = {}
    for place, source in _database_sources(form, path):
        if source.connection in away:
            continue
        try:
            await _try(connections, source)
        except AppError as error:
            if error.code in PASSING:
                message = f"{error.message} Options that are read from there were not checked."
                away[source.connection] = Warned(code=error.code, message=message)
            else:
                faults.append(Fault(place, error.code, error.message))
    if faults:
        raise form_invalid(faults)
    return [*away.values()]


async def _try(connections: Connections, source: DatabaseSource) -> None:
    check_readable(source)
    async with connections.reading(source.connection, WITHIN) as connection:
        rows = await read_table(connection, source)
        with judged(source.connection):
            # What it depends on is not known yet.
            whole = source.model_copy(update={"where": None})
            await rows_of_select(connection, selected(rows, whole, Asked({})).limit(0))


def _database_sources(form: Sequence[FormField], path: str) -> Iterator[tuple[str, DatabaseSource]]:
    """Those of every level, each with its path."""
    for index, field in enumerate(form):
        place = f"{path}[{index}]"
        match field:
            case ChoiceField(data_source=DatabaseSource() as source):
                yield f"{place}.dataSource", source
            case LocatorField():
                for at, mode in enumerate(field.modes):
                    if isinstance(mode.data_source, DatabaseSource):
                        yield f"{place}.modes[{at}].dataSource", mode.data_source
            case CollectionField():
                yield from _database_sources(field.options, f"{place}.options")
            case FixedCollectionField():
                for at, group in enumerate(field.options):
                    yield from _database_sources(group.values, f"{place}.options[{at}].values")
            case _:
                pass
