"""Rules about what is read before a step: under which name, where, and from what."""

from collections.abc import Iterator

from engine.rules.examined import Examined, Finding, not_checked
from engine.rules.outputs import runs_over_items
from engine.steps import DataSource, Step, StepType

NO_ACTIONS = "the registered actions are not known here"

_UNREAD = frozenset(
    {
        StepType.START,
        StepType.END,
        StepType.GATEWAY_PARALLEL_JOIN,
        StepType.GATEWAY_EXCLUSIVE_JOIN,
        StepType.GATEWAY_INCLUSIVE_JOIN,
    }
)


def sources(examined: Examined) -> Iterator[tuple[str, Step, DataSource]]:
    """Every datasource that is read, with its path and its step."""
    for at, step in enumerate(examined.steps):
        for index, source in enumerate(step.data_sources):
            yield f"steps[{at}].dataSources[{index}]", step, source


def datasource_aliases_unique(examined: Examined) -> Iterator[Finding]:
    """No two datasources of a step share an alias."""
    seen: set[tuple[str, str]] = set()
    for path, step, source in sources(examined):
        if (step.id, source.alias) in seen:
            message = f'another datasource of this step already has the alias "{source.alias}"'
            yield Finding(f"{path}.alias", message, step_ids=(step.id,))
        seen.add((step.id, source.alias))


def datasource_placed(examined: Examined) -> Iterator[Finding]:
    """Datasources are read before steps that have something to evaluate; per item only where there are items."""
    for path, step, source in sources(examined):
        if step.type in _UNREAD:
            yield Finding(path, f"nothing is read before a {step.type}", step_ids=(step.id,))
        elif source.scope == "per-item" and not runs_over_items(step):
            message = "per-item needs items: a forEach or a BATCH"
            yield Finding(f"{path}.scope", message, step_ids=(step.id,))


def datasource_exists(examined: Examined) -> Iterator[Finding]:
    """A datasource is a registered action that reads."""
    for path, step, source in sources(examined):
        if examined.catalogue is None:
            yield not_checked(f"{path}.dataSourceId", NO_ACTIONS)
            return
        if source.data_source_id not in examined.catalogue.actions:
            hint = examined.hints.similar("action", source.data_source_id, examined.catalogue.actions)
            message = f'there is no datasource "{source.data_source_id}"{hint}'
            yield Finding(f"{path}.dataSourceId", message, step_ids=(step.id,))
