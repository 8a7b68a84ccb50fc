"""Which of several endpoints an address means."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Invalid
from app.webhooks.paths import choose, read_pattern, split_path


@pytest.mark.parametrize(
    ("pattern", "path", "parameters"),
    [
        ("orders", "orders", {}),
        ("/orders/", "orders/", {}),
        ("orders", "Orders", None),
        ("orders", "orders/1", None),
        ("orders/{id}", "orders/17", {"id": "17"}),
        ("orders/{id}", "orders", None),
        ("orders/{id}", "orders//", None),
        ("{shop}/orders/{id}", "north/orders/17", {"shop": "north", "id": "17"}),
        ("orders/*", "orders/17", {}),
        ("orders/*", "orders/17/lines", None),
        ("orders-*", "orders-", {}),
        ("orders-*", "orders-eu-1", {}),
        ("o?ders", "orders", {}),
        ("o?ders", "oders", None),
        ("v?.x/*-eu", "v1.x/a-eu", {}),
        ("v?.x/*-eu", "v1+x/a-eu", None),
        ("git/**", "git/a/b/c", {}),
        ("git/**", "git", None),
        ("git/**", "git//a", None),
    ],
)
def test_a_pattern_matches_what_it_says(pattern: str, path: str, parameters: dict[str, str] | None) -> None:
    assert read_pattern(pattern).match(split_path(path)) == parameters


def test_the_pattern_that_says_most_wins_whatever_the_order() -> None:
    patterns = ["a/b", "a/b-*", "a/b*", "a/{id}", "{x}/b", "a/**", "**"]
    expected = {"a/b": "a/b", "a/b-1": "a/b-*", "a/bc": "a/b*", "a/z": "a/{id}", "z/b": "{x}/b", "a/b/c": "a/**"}
    for order in itertools.islice(itertools.permutations(patterns), 0, 5040, 7):
        for path, winner in (expected | {"z/z/z": "**"}).items():
            found = choose(path, [(pattern, pattern) for pattern in order])
            assert found is not None
            assert found[0] == winner


def test_parameters_of_other_names_are_the_same_shape() -> None:
    assert read_pattern("orders/{id}").shape == read_pattern("/orders/{number}").shape == read_pattern("orders/*").shape
    assert read_pattern("orders/{id}").text == "orders/{id}"


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "a//b", "a/../b", ".", "a b", "a/**/b", "{a}/{a}", "{a}x", "{}", "***", "a*b*c*", "a#b", "a%20b", "ä"],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid) as refusal:
        read_pattern(pattern)
    assert refusal.value.code == "PATH_INVALID"


@given(st.text(max_size=30))
def test_a_pattern_that_is_taken_reads_the_same_again(text: str) -> None:
    try:
        pattern = read_pattern(text)
    except Invalid:
        return
    assert read_pattern(pattern.text) == pattern
    if not pattern.wild:
        assert pattern.match(split_path(text)) == {}
