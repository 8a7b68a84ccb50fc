"""Order and reachability, checked against the obvious slow way."""

from hypothesis import given
from hypothesis import strategies as st

from engine.reach import components, join_reach, plan_order

Graph = list[list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A directed graph without self loops."""
    size = draw(st.integers(1, 9))
    nodes = st.integers(0, size - 1)
    edges = draw(st.lists(st.tuples(nodes, nodes), max_size=25, unique=True))
    following: Graph = [[] for _ in range(size)]
    for source, target in edges:
        if source != target:
            following[source].append(target)
    return following


def reversed_graph(following: Graph) -> Graph:
    preceding: Graph = [[] for _ in following]
    for source, targets in enumerate(following):
        for target in targets:
            preceding[target].append(source)
    return preceding


def reaches(following: Graph, source: int, target: int, avoided: int) -> bool:
    seen, stack = {source}, [source]
    while stack:
        node = stack.pop()
        if node == target:
            return True
        for after in following[node]:
            if after not in seen and after != avoided:
                seen.add(after)
                stack.append(after)
    return False


@given(graphs())
def test_a_join_is_reached_by_just_those_nodes_that_have_a_path_around_it(following: Graph) -> None:
    preceding = reversed_graph(following)
    reach = join_reach(following, preceding)
    for join in range(len(following)):
        for sources, source in zip(reach(join), preceding[join], strict=True):
            expected = {
                node
                for node in range(len(following))
                if node != join and reaches(following, node, source, avoided=join)
            }
            found = {node for node in range(len(following)) if sources >> node & 1}
            assert found - {join} == expected


@given(graphs())
def test_every_node_is_in_one_component_and_components_stand_in_order(following: Graph) -> None:
    found = components(following)
    place = {node: at for at, component in enumerate(found) for node in component}
    assert sorted(place) == list(range(len(following)))
    for source, targets in enumerate(following):
        assert all(place[source] <= place[target] for target in targets)
    for one in range(len(following)):
        for other in range(len(following)):
            mutual = reaches(following, one, other, -1) and reaches(following, other, one, -1)
            assert (place[one] == place[other]) == mutual


@given(graphs())
def test_plan_order_begins_at_the_start_and_puts_a_step_after_what_leads_to_it(following: Graph) -> None:
    order = plan_order(following, 0)
    assert order[0] == 0
    assert sorted(order) == list(range(len(following)))
    place = {node: at for at, node in enumerate(order)}
    component = {node: at for at, members in enumerate(components(following)) for node in members}
    for source, targets in enumerate(following):
        for target in targets:
            reachable = reaches(following, 0, source, -1)
            if reachable and component[source] != component[target]:
                assert place[source] < place[target]


def test_a_chain_of_ten_thousand_nodes_needs_no_recursion() -> None:
    following = [[node + 1] for node in range(9_999)] + [[]]
    assert plan_order(following, 0) == list(range(10_000))
    assert len(components(following)) == 10_000
