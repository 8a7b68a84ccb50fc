"""Rules about joins that do not wait for all of their branches: each closes a region that one split opens."""

from collections.abc import Iterator

from engine.problems import Severity
from engine.rules.examined import Examined, Finding
from engine.steps import JoinStep


def join_policy_in_range(examined: Examined) -> Iterator[Finding]:
    """N_OF_M says how many of its branches it waits for; no other policy does."""
    for at, step in _joins(examined):
        path = f"steps[{at}].join"
        policy, n = step.join.policy, step.join.n
        split = examined.closed.get(at)
        branches = len(examined.incoming[at] if split is None else examined.outgoing[split])
        if policy == "N_OF_M" and n is None:
            yield Finding(path, "N_OF_M needs `n`: how many branches it waits for", step_ids=(step.id,))
        elif policy == "N_OF_M" and n is not None and n > branches:
            message = f"there are {branches} branches, so {n} of them can never arrive"
            yield Finding(f"{path}.n", message, step_ids=(step.id,))
        elif policy != "N_OF_M" and n is not None:
            yield Finding(f"{path}.n", f"`n` belongs to N_OF_M, not to {policy}", step_ids=(step.id,))
        if policy in ("ALL", "ALL_SETTLED") and step.join.cancel_remaining:
            message = f"nothing remains of the branches when {policy} goes on"
            yield Finding(f"{path}.cancelRemaining", message, Severity.WARNING, (step.id,))


def join_needs_region(examined: Examined) -> Iterator[Finding]:
    """The branches of one split all end at a join with a policy, and nowhere else."""
    for at, step in _joins(examined):
        if step.join.policy == "ALL" or at in examined.closed or not examined.flow.reachable >> at & 1:
            continue
        why, where = _why(examined, at, step.join.policy)
        yield Finding(f"steps[{at}].join", why, step_ids=tuple(dict.fromkeys((step.id, *where))))


def _why(examined: Examined, join: int, policy: str) -> tuple[str, tuple[str, ...]]:
    """What keeps a join from closing a region of the nearest split, and the steps concerned."""
    nearest = next(examined.regions.candidates(join), None)
    if nearest is None:
        return f"{policy} needs one parallel or inclusive split through which every way to this join leads", ()
    split = examined.steps[nearest].id
    obstacle = examined.regions.obstacle(nearest, join)
    if obstacle is None:
        return f'"{split}" has another join already', (split,)
    kind, node = obstacle
    name = examined.steps[node].id
    match kind:
        case "SHARED":
            why = f'two branches of "{split}" come together at "{name}", before this join'
        case "BACK":
            why = f'a branch of "{split}" leads back to it past this join'
        case "ENTERED":
            what = "this join" if node == join else f'"{name}", which a branch leads to,'
            why = f'{what} is also entered from outside of the branches of "{split}"'
        case _:
            why = f'the branches of "{split}" are too tangled to be followed to this join'
    return f"{policy} counts the branches of one split, which all end here and nowhere else; {why}", (split, name)


def _joins(examined: Examined) -> Iterator[tuple[int, JoinStep]]:
    return ((at, step) for at, step in examined.first_steps if isinstance(step, JoinStep))
