"""Order and reachability in a graph of integers, for the plan. Sets of nodes are ints, a bit for each."""

from collections.abc import Callable, Sequence

Graph = Sequence[Sequence[int]]


def plan_order(following: Graph, start: int) -> list[int]:
    """Reverse postorder from `start`, first branch first; what cannot be reached comes last, as it stands."""
    finished: list[int] = []
    seen = [False] * len(following)
    seen[start] = True
    stack = [(start, len(following[start]))]
    while stack:
        node, left = stack.pop()
        if left == 0:
            finished.append(node)
            continue
        stack.append((node, left - 1))
        target = following[node][left - 1]
        if not seen[target]:
            seen[target] = True
            stack.append((target, len(following[target])))
    finished.reverse()
    return finished + [node for node in range(len(following)) if not seen[node]]


def join_reach(following: Graph, preceding: Graph) -> Callable[[int], tuple[int, ...]]:
    """For a join: per incoming edge, the nodes from which it can be reached by a path not through the join.

    Outside cycles that is simply the ancestors of the edge's source, computed for all nodes in one pass; a join on a
    cycle needs a search of its own. Both are put off until the first inclusive join asks.
    """
    ancestors: list[int] | None = None
    cyclic = 0

    def reach(join: int) -> tuple[int, ...]:
        nonlocal ancestors, cyclic
        if ancestors is None:
            ancestors, cyclic = _ancestors(following, preceding)
        if cyclic >> join & 1:
            return tuple(_search(preceding, source, join) for source in preceding[join])
        return tuple(ancestors[source] | 1 << source for source in preceding[join])

    return reach


def _search(preceding: Graph, source: int, avoided: int) -> int:
    """The nodes that can reach `source` without passing `avoided`, itself included."""
    if source == avoided:
        return 0
    seen = 1 << source
    stack = [source]
    while stack:
        for node in preceding[stack.pop()]:
            if node != avoided and not seen >> node & 1:
                seen |= 1 << node
                stack.append(node)
    return seen


def _ancestors(following: Graph, preceding: Graph) -> tuple[list[int], int]:
    """Every node's ancestors, and the set of nodes that lie on a cycle."""
    ancestors = [0] * len(following)
    cyclic = 0
    for component in components(following):
        members = 0
        before = 0
        for node in component:
            members |= 1 << node
            for source in preceding[node]:
                before |= ancestors[source] | 1 << source
        if len(component) > 1:
            cyclic |= members
        for node in component:
            ancestors[node] = before
    return ancestors, cyclic


def components(following: Graph) -> list[list[int]]:
    """Strongly connected components, each after those that lead to it (Tarjan, without recursion)."""
    count = len(following)
    number = [0] * count
    low = [0] * count
    on_stack = [False] * count
    stack: list[int] = []
    found: list[list[int]] = []
    counter = 0
    for root in range(count):
        if number[root]:
            continue
        work = [(root, 0)]
        while work:
            node, at = work.pop()
            if at == 0:
                counter += 1
                number[node] = low[node] = counter
                stack.append(node)
                on_stack[node] = True
            if at < len(following[node]):
                work.append((node, at + 1))
                target = following[node][at]
                if not number[target]:
                    work.append((target, 0))
                elif on_stack[target]:
                    low[node] = min(low[node], number[target])
                continue
            if low[node] == number[node]:
                found.append(_popped(stack, on_stack, node))
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[node])
    found.reverse()
    return found


def _popped(stack: list[int], on_stack: list[bool], until: int) -> list[int]:
    component = []
    while True:
        node = stack.pop()
        on_stack[node] = False
        component.append(node)
        if node == until:
            return component
