"""Dominators and regions, checked against the obvious slow way."""

from time import process_time

from hypothesis import given
from hypothesis import strategies as st

from engine.enclosure import NOWHERE, Regions, immediate_dominators
from tests.engine.test_reach import Graph, graphs, reversed_graph


def reached(following: Graph, start: int, avoided: int | None = None) -> set[int]:
    """The nodes that a path leads to from `start` without passing the avoided one."""
    seen = {start} - {avoided}
    stack = list(seen)
    while stack:
        for after in following[stack.pop()]:
            if after not in seen and after != avoided:
                seen.add(after)
                stack.append(after)
    return seen


@given(graphs())
def test_a_dominator_is_on_every_path_and_the_immediate_one_is_the_last(following: Graph) -> None:
    found = immediate_dominators(following, reversed_graph(following), 0)
    reachable = reached(following, 0)
    assert {node for node, dominator in enumerate(found) if dominator == NOWHERE} == set(range(len(found))) - reachable
    for node in reachable - {0}:
        dominators = {other for other in reachable - {node} if node not in reached(following, 0, other)}
        chain = [found[node]]
        while chain[-1] != 0:
            chain.append(found[chain[-1]])
        assert set(chain) == dominators


def encloses(following: Graph, split: int, join: int) -> bool:
    """The definition of a region, word for word; START, which every execution enters, is inside of none."""
    branches = [set() if target == join else reached(following, target, join) for target in following[split]]
    inside = set().union(*branches)
    sources = [source for source, targets in enumerate(following) for target in targets if target in inside]
    entering = [source for source, targets in enumerate(following) if join in targets]
    return (
        bool(inside)
        and 0 not in inside
        and sum(map(len, branches)) == len(inside)
        and split not in inside
        and set(sources) <= inside | {split}
        and set(entering) <= inside | {split}
    )


@given(graphs(), st.sets(st.integers(0, 8)))
def test_a_join_closes_a_region_just_when_a_split_encloses_it(following: Graph, splits: set[int]) -> None:
    splits &= reached(following, 0)
    for join in reached(following, 0) - {0}:
        regions = Regions(following, reversed_graph(following), 0, splits)
        fitting = {split for split in splits - {join} if encloses(following, split, join)}
        found = regions.close([join]).get(join)
        assert (found is not None) == bool(fitting - {join})
        assert found is None or found in fitting
        for split in regions.candidates(join):
            assert (regions.obstacle(split, join) is None) == (split in fitting)


def test_a_split_opens_one_region_only() -> None:
    following = [[1], [2, 3], [4], [4], [5, 6], [7], [7], []]
    regions = Regions(following, reversed_graph(following), 0, {1, 4})
    assert regions.close([4, 7]) == {4: 1, 7: 4}


def test_thousands_of_nested_regions_are_found_or_given_up_in_time() -> None:
    depth = 1_500
    following: Graph = [[1]]
    for at in range(depth):
        split, join = 1 + at, 1 + depth + at
        inner = split + 1 if at < depth - 1 else join
        following.append([inner, 1 + 2 * depth + at])
        assert len(following) == split + 1
    following += [[2 + 3 * depth if at == 0 else depth + at] for at in range(depth)]
    following += [[1 + depth + at] for at in range(depth)]
    following += [[2 + 3 * depth], []]
    began = process_time()
    regions = Regions(following, reversed_graph(following), 0, set(range(1, depth + 1)))
    found = regions.close(list(reversed(range(1 + depth, 1 + 2 * depth))))
    assert process_time() - began < 3
    assert all(join == split + depth for join, split in found.items())
    assert len(found) > 100
