"""Rules about names that must be there once."""

from collections.abc import Iterable, Iterator

from engine.rules.examined import Examined, Finding


def step_ids_unique(examined: Examined) -> Iterator[Finding]:
    """No two steps share an id."""
    for at, step_id in _repeated(step.id for step in examined.steps):
        message = f'another step already has the id "{step_id}"'
        yield Finding(f"steps[{at}].id", message, step_ids=(step_id,))


def transition_ids_unique(examined: Examined) -> Iterator[Finding]:
    """No two transitions share an id."""
    for at, transition_id in _repeated(transition.id for transition in examined.transitions):
        message = f'another transition already has the id "{transition_id}"'
        yield Finding(f"stepTransitions[{at}].id", message, transition_ids=(transition_id,))


def step_group_ids_unique(examined: Examined) -> Iterator[Finding]:
    """No two groups share an id."""
    for at, group_id in _repeated(group.id for group in examined.definition.step_groups):
        yield Finding(f"stepGroups[{at}].id", f'another group already has the id "{group_id}"')


def variable_keys_unique(examined: Examined) -> Iterator[Finding]:
    """No two variables share a key."""
    for at, key in _repeated(variable.key for variable in examined.definition.variables):
        yield Finding(f"variables[{at}].key", f'another variable already has the key "{key}"')


def _repeated(names: Iterable[str]) -> Iterator[tuple[int, str]]:
    seen: set[str] = set()
    for at, name in enumerate(names):
        if name in seen:
            yield at, name
        seen.add(name)
