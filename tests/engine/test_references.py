"""What an expression refers to, and which references are refused."""

import pytest

from engine.errors import ExpressionError
from engine.expression import compile_expression
from engine.references import Reference


def references(source: str) -> list[tuple[str, bool]]:
    return [(str(found), found.required) for found in compile_expression(source).references]


def refusal(source: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source)
    assert caught.value.code == "EXPRESSION_INVALID"
    return caught.value.message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 + 1", []),
        ("__context__", [("__context__", True)]),
        ("__steps__.fetch.result[0].x", [("__steps__.fetch.result", True)]),
        ("__steps__.`send mail`.id", [("__steps__.send mail.id", True)]),
        ("__context__.a.b[].c", [("__context__.a.b.c", True)]),
        ("__context__.a.$sum(b)", [("__context__.a", True)]),
        ("__context__.a.*.b", [("__context__.a", True)]),
        ("__context__.a#$i.b@$x.c", [("__context__.a.b.c", True)]),
        ("__context__.a[b > __each__.c]", [("__context__.a", True), ("__each__.c", True)]),
        ("__context__.a & __context__.a", [("__context__.a", True)]),
        ("'__context__.a' & __each__", [("__each__", True)]),
        ("__context__.`__steps__`", [("__context__.__steps__", True)]),
        ("$lookup(__context__, 'x')", [("__context__", True)]),
        ("__child__[status = 'x']", [("__child__", True)]),
        ("__context__.a ?? __context__.b", [("__context__.a", False), ("__context__.b", True)]),
        ("(__context__.a + 1) ?: 0", [("__context__.a", False)]),
        ("$exists(__context__.a) ? __context__.a : __context__.b",
         [("__context__.a", False), ("__context__.b", True)]),
        ("$exists(__context__.a) ? __context__.a.b : 0", [("__context__.a", False), ("__context__.a.b", True)]),
        ("__context__.a ?? (__context__.a & 'x')", [("__context__.a", True)]),
        ("/* __context__.a */ 1", []),
        ("$contains('x', /__context__.a/)", []),
    ],
)  # fmt: skip
def test_references_are_found_with_their_static_path(source: str, expected: list[tuple[str, bool]]) -> None:
    assert references(source) == expected


def test_a_reference_is_a_root_a_path_and_whether_it_is_required() -> None:
    assert compile_expression("__steps__.a.b").references == (Reference("__steps__", ("a", "b"), True),)


@pytest.mark.parametrize(
    "source",
    [
        "__steps__", "$keys(__steps__)", "$lookup(__steps__, 'a')", "__steps__.*", "__steps__.**", "__steps__.$keys()",
        "__steps__[0]", "__steps__['a']", "__steps__.(a)", "__steps__^(a)", "__steps__{a: b}", "__steps__ ~> $keys",
        "[__steps__]", "$s := __steps__", "__steps__@$s.a", "__variables__", "__datasources__.*", "__steps__.%",
    ],
)  # fmt: skip
def test_a_root_of_named_members_must_name_one(source: str) -> None:
    refusal(source)


@pytest.mark.parametrize(
    "source",
    ["$$", "$$.a", "$", "$.a", "*", "**", "%", "__context__.*", "__context__.**", "__context__.a.%", "`a`", "'a'.b",
     "__context__.a.b.%.%", "__context__.a.(b.%.%)"],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused(source: str) -> None:
    refusal(source)


def test_a_name_that_is_relative_to_nothing_is_refused_with_a_hint() -> None:
    assert "write __context__.customer" in refusal("customer.name")
    assert "write __context__.x" in refusal("$map([1], function($v){ x })")
    assert "write __context__.x" in refusal("__context__.a ? x : 1")
    assert "begin with '$'" in refusal("sum(__context__.a)")


@pytest.mark.parametrize(
    "source",
    ["__context__.a.(b)", "__context__.a[b]", "__context__.a^(b)", "__context__.a{b: c}",
     "__context__.a ~> |b|{'c': d}|", "__context__.a.(b[$ > c])",
     "__context__.a.$map(b, function($x){ c })", "__context__.a[$ = 1]"],
)  # fmt: skip
def test_a_name_that_is_relative_to_an_item_is_no_reference(source: str) -> None:
    assert references(source) == [("__context__.a", True)]


@pytest.mark.parametrize(
    "source",
    ["$eval('1')", "$map(['1'], $eval)", "$e := $eval", "$__now", "$__tick()", "$__context__.a", "$__1 := 5",
     "function($__x){1}", "$exists := 5", "$now := 5", "function($random){1}", "__contxt__.a", "__x__"],
)  # fmt: skip
def test_names_that_are_not_the_author_s_are_refused(source: str) -> None:
    refusal(source)


@pytest.mark.parametrize(
    "source",
    ["$map([1], $random)", "$p := $pad", "$pad(?, 5)", "$join", "[$now]", "$pad('x')", "$replace('a', 'b')",
     "$random(1)", "$millis(1)", "$shuffle()"],
)  # fmt: skip
def test_a_built_in_that_is_rewritten_can_only_be_called(source: str) -> None:
    refusal(source)


@pytest.mark.parametrize("source", ["__context__.a['b']", "__context__['a']", "__each__.(x['y'])"])
def test_brackets_do_not_select_a_member(source: str) -> None:
    assert "brackets do not select" in refusal(source)


def test_a_root_is_no_step() -> None:
    assert "put it in parentheses" in refusal("__context__.a.__each__.b")


@pytest.mark.parametrize("source", ["1 + ($x := 2) + $x := 3", "[$x := 1, $x]", "$f($x := 1)", "{'a': $x := 1}"])
def test_an_assignment_stands_on_its_own(source: str) -> None:
    refusal(source)


@pytest.mark.parametrize(
    "pattern", ["(?=a)", "(?!a)", "(?<=a)b", "(?<!a)b", r"(a)\1", r"(?<n>a)\k<n>", "a++", "(?>a)", "a{2}+"]
)
def test_a_pattern_that_needs_backtracking_is_refused(pattern: str) -> None:
    refusal(f"$match('aa', /{pattern}/)")


@pytest.mark.parametrize("pattern", ["(?:a)+", "(?i)a", "(?<n>a)", "(?P<n>a)", r"\+\+", "[+]+", r"\d{2}", "a+?"])
def test_a_pattern_that_does_not_is_accepted(pattern: str) -> None:
    compile_expression(f"$contains('aa', /{pattern}/)")


@pytest.mark.parametrize("name", ['a"b', "a'b", "a\x00b", "a`b", "a\u00a0b"])
def test_a_strange_character_in_a_bare_name_is_refused(name: str) -> None:
    refusal(f"__context__.{name}")
