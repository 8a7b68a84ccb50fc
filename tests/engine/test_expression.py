"""What expressions mean: roots, strictness, time and chance, JSON in and out, templates."""

import copy
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from immutables import Map

from engine.errors import ExpressionError
from engine.expression import Moment, compile_expression, compile_template, evaluate, render
from engine.json_types import UNDEFINED

MOMENT = Moment(1_700_000_000_000, "execution/visit")
ITEMS = [{"name": "a", "price": 3}, {"name": "b", "price": 9}]
CONTEXT: dict[str, Any] = {
    "amount": 500,
    "limit": 5,
    "items": ITEMS,
    "nothing": None,
    "empty": [],
    "a b": {"c": 1},
    "orders": [{"id": 7, "lines": [{"n": 1}, {"n": 2}]}],
    "order": {"id": 7, "lines": [{"n": 1}, {"n": 2}]},
}
SCOPE: dict[str, object] = {
    "__context__": Map(CONTEXT),
    "__steps__": Map({"check": {"result": "ok"}}),
    "__each__": {"x": 1},
    "__index__": 0,
}


def value(source: str, scope: Mapping[str, object] = SCOPE, moment: Moment = MOMENT) -> Any:
    return evaluate(compile_expression(source), scope, moment)


def failure(source: str, scope: Mapping[str, object] = SCOPE) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        value(source, scope)
    return caught.value


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('__context__.amount > 100 and __steps__.check.result = "ok"', True),
        ("__context__.items.price", [3, 9]),
        ("__context__.items[1].name", "b"),
        ("__context__.items[[0..1]].name", ["a", "b"]),
        ("__context__.items[[-1, 0]].name", ["a", "b"]),
        ("__context__.items[[__index__, 1]].name", ["a", "b"]),
        ("__context__.`a b`.c", 1),
        ('__context__."a b".c', 1),
        ("$sum(__context__.items.price)", 12),
        ("__context__.items ~> $map(function($i){$i.price}) ~> $sum", 12),
        ("__context__.items^(>price).name", ["b", "a"]),
        ("__context__.items{name: price}", {"a": 3, "b": 9}),
        ('__context__.items#$i.{"at": $i, "n": name}', [{"at": 0, "n": "a"}, {"at": 1, "n": "b"}]),
        ("__context__.orders.lines.(%.id + n)", [8, 9]),
        ('["a", "b"] ~> $join("-")', "a-b"),
        ("[1..3]", [1, 2, 3]),
        ("[1..3, 7]", [1, 2, 3, 7]),
        ("($x := 5; $y := $x + 1; $x * $y)", 30),
        ("($a := $b := 5; $b)", 5),
        ("($f := function($n){ $n <= 1 ? 1 : $n * $f($n - 1) }; $f(10))", 3_628_800),
        ("/* a comment */ 1", 1),
        ('$replace("hello", /l+/, "L")', "heLo"),
        ('$split("a,b", ",")', ["a", "b"]),
        ('$pad("x", 3, "-")', "x--"),
        ("$distinct([1, 1, 2])", [1, 2]),
        ('$formatInteger(12, "w")', "twelve"),
        ('$formatNumber(1234.5, "#,##0.00")', "1,234.50"),
        ('$toMillis("2020-01-01T00:00:00Z")', 1_577_836_800_000),
        ('$toMillis("2020-02", "[Y]-[M]")', 1_580_515_200_000),
        ('$fromMillis(0, "[Y]")', "1970"),
        ("__index__", 0),
        ("__each__", {"x": 1}),
        ("null", None),
        ("{}.a", UNDEFINED),
    ],
)
def test_an_expression_has_the_value_that_jsonata_gives_it(source: str, expected: object) -> None:
    result = value(source)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("__context__.items[price > __context__.limit].name", "b"),
        ("__context__.items.(__context__.limit + price)", [8, 14]),
        ("$map(__context__.items, function($i){ $i.price * __context__.limit })", [15, 45]),
        ("__context__.items^(price * __context__.limit).name", ["a", "b"]),
        ("__context__.items{name: __index__}", {"a": 0, "b": 0}),
        ('__context__.items ~> |$|{"price": __context__.limit}|', [{**i, "price": 5} for i in ITEMS]),
    ],
)
def test_a_root_means_the_root_wherever_it_stands(source: str, expected: object) -> None:
    assert value(source) == expected


def test_a_missing_path_is_an_error_that_names_it() -> None:
    error = failure('"Dear " & __context__.customer.name')
    assert (error.code, error.message) == ("EXPRESSION_UNDEFINED", "__context__.customer.name does not exist")
    assert failure("__execution__.id").code == "EXPRESSION_UNDEFINED"
    assert failure("__context__.items.colour = 5").code == "EXPRESSION_UNDEFINED"
    assert failure("__context__.nothing.below").code == "EXPRESSION_UNDEFINED"
    assert failure("__error__", {}).code == "EXPRESSION_UNDEFINED"


def test_a_null_is_there_and_is_not_undefined() -> None:
    assert value("__context__.nothing") is None
    assert value('__context__.nothing ?? "x"') is None
    assert value("__context__.absent ?? null") is None
    assert value("$exists(__context__.nothing)") is True


def test_an_empty_list_misses_nothing() -> None:
    assert value("__context__.empty.name") is UNDEFINED


def test_one_item_that_has_the_member_is_enough() -> None:
    scope = {"__context__": {"items": [{}, {"x": 1}]}}
    assert value("__context__.items.x", scope) == 1


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("__context__.absent ?? 5", 5),
        ("__context__.absent.deeper ?: 5", 5),
        ("$exists(__context__.absent)", False),
        ("__context__.absent ~> $exists()", False),
        ("__context__.absent ~> $exists", False),
        ("$exists(__context__.absent) ? __context__.absent : 0", 0),
        ('{"there": $exists(__context__.absent), "x": __context__.absent}', {"there": False}),
    ],
)
def test_a_guarded_path_may_be_absent(source: str, expected: object) -> None:
    assert value(source) == expected


@pytest.mark.parametrize(
    ("taken", "not_taken"),
    [
        ("true ? __context__.absent : 1", "false ? __context__.absent : 1"),
        ("false ? 1 : __context__.absent", "true ? 1 : __context__.absent"),
        ("true and __context__.absent", "false and __context__.absent"),
        ("false or __context__.absent", "true or __context__.absent"),
        ("null ?: __context__.absent", "1 ?: __context__.absent"),
        ("__context__.other ?? __context__.absent", "1 ?? __context__.absent"),
        ("$map([1], function($x){ __context__.absent })", "$map([], function($x){ __context__.absent })"),
        ("__context__.items.(__context__.absent)", "__context__.empty.(__context__.absent)"),
        ("__context__.items[__context__.absent]", "__context__.empty[__context__.absent]"),
    ],
)
def test_a_path_behind_a_condition_must_exist_only_when_it_is_reached(taken: str, not_taken: str) -> None:
    assert failure(taken).message == "__context__.absent does not exist"
    value(not_taken)


def test_a_test_must_exist_even_if_its_branch_would_not_need_it() -> None:
    assert failure("__context__.absent ? 1 : 2").code == "EXPRESSION_UNDEFINED"


def test_the_left_of_a_default_is_evaluated_once() -> None:
    nested = "__context__.absent"
    for _ in range(40):
        nested = f"({nested} ?? 1)"
    doubled = "1"
    for _ in range(40):
        doubled = f"({doubled} ?: 2)"
    assert value(nested) == 1
    assert value(doubled) == 1


def test_time_is_the_moment() -> None:
    assert value("$millis()") == MOMENT.now_ms
    assert value("$now()") == "2023-11-14T22:13:20.000Z"
    assert value('$now("[Y0001]-[M01]-[D01]")') == "2023-11-14"
    assert value('$now("[H01]:[m01]", "+0200")') == "00:13"
    assert value("$map([1, 2], function($x){ $millis() })") == [MOMENT.now_ms] * 2


@pytest.mark.parametrize("source", ['$toMillis("13:45", "[H]:[m]")', '$toMillis("2020-01-01T00:00")'])
def test_the_machine_s_clock_and_time_zone_are_out_of_reach(source: str) -> None:
    assert failure(source).code == "EXPRESSION_FAILED"


def test_chance_follows_from_the_seed() -> None:
    source = '{"r": [$random(), $random()], "u": [1..3].$uuid(), "s": $shuffle([1..20]), "t": [1..9] ~> $shuffle}'
    drawn = value(source)
    assert drawn == value(source)
    assert drawn != value(source, moment=Moment(MOMENT.now_ms, "another"))
    assert len(set(drawn["r"])) == 2
    assert len(set(drawn["u"])) == 3
    assert sorted(drawn["s"]) == list(range(1, 21))
    assert drawn["s"] != sorted(drawn["s"])


def test_chance_is_the_same_in_every_process_and_release() -> None:
    assert value("$random()", moment=Moment(0, "seed")) == 0.1382359792209653
    assert value("$uuid()", moment=Moment(0, "seed")) == "f13d1ab8-3c98-49fe-8f13-9fa223636efe"
    assert value("$shuffle([1..6])", moment=Moment(0, "seed")) == [5, 3, 6, 4, 2, 1]


def test_numbers_and_nulls_keep_their_kind() -> None:
    assert repr(value("[1, 1.5, -0.0, 10.0, null, true, {}, []]")) == "[1, 1.5, 0, 10, None, True, {}, []]"
    assert repr(value("__context__.amount + 1")) == "501"


def test_a_whole_number_above_2_53_is_passed_on_exactly_or_refused() -> None:
    scope = {"__context__": {"id": 2**60 + 1, "n": 1, "in": {"id": 2**70}}}
    assert value("__context__.id", scope) == 2**60 + 1
    assert value("__context__", scope) == scope["__context__"]
    assert value("__context__.n + 1", scope) == 2
    assert failure("__context__.id + 1", scope).code == "EXPRESSION_FAILED"
    assert "2^53" in failure('{"x": __context__.in}', scope).message
    endless = {"__context__": {"in": 10**5_000}}
    assert "2^53" in failure('{"x": __context__.in}', endless).message
    assert failure("9007199254740993").code == "EXPRESSION_INVALID"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    scope = {"__context__": {"x": number}}
    assert failure("__context__.x", scope).code == "EXPRESSION_RESULT"
    assert failure("[__context__.x]", scope).code == "EXPRESSION_FAILED"
    assert failure("1 / 0").code == "EXPRESSION_FAILED"


@pytest.mark.parametrize(
    "source",
    ["$sum", "function($x){$x}", "/a/", '{"f": $sum}', "[[$sum]]", "$f := function($x){$x}", '"a" ~> /a/',
     "$map([1], function($x){ $sum })", "($f := function(){1}; [$f])", "$sum ~> $string"],
)  # fmt: skip
def test_a_function_is_no_result(source: str) -> None:
    assert failure(source).code == "EXPRESSION_RESULT"


def test_text_that_is_not_unicode_is_an_error_with_a_code() -> None:
    scope = {"__context__": {"x": "\ud800", "nul": "a\x00b"}}
    assert failure('__context__.x & "!"', scope).code == "EXPRESSION_FAILED"
    assert value('__context__.nul & "!"', scope) == "a\x00b!"
    assert failure('"\ud800"').code == "EXPRESSION_INVALID"
    assert value('"\\ud83d\\ude00\\ud800"') == "😀\ufffd"


def test_a_value_that_is_not_json_is_an_error_with_a_code() -> None:
    for strange in (object(), {1: 2}, {1, 2}, b"x"):
        assert failure("[__context__.x]", {"__context__": {"x": strange}}).code == "EXPRESSION_FAILED"


def test_results_are_the_caller_s_own() -> None:
    scope = {"__context__": {"a": {"b": [1]}}}
    for source in ("__context__.a", "__context__", "__context__.a.b", '{"x": __context__.a}'):
        result = value(source, scope)
        result.clear()
    assert scope == {"__context__": {"a": {"b": [1]}}}


def test_a_map_s_members_come_in_order_of_their_names() -> None:
    scope = {"__context__": Map({"b": 1, "a": 2, "c": 3})}
    assert list(value("__context__", scope)) == ["a", "b", "c"]
    assert value("$keys(__context__)", scope) == ["a", "b", "c"]


class Untouchable(dict[str, object]):
    """Data that must not be looked at."""

    def __getitem__(self, key: str) -> object:
        raise AssertionError(key)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError

    def items(self) -> Any:
        raise AssertionError

    def values(self) -> Any:
        raise AssertionError


def test_only_what_is_referred_to_is_handed_over() -> None:
    scope = {
        "__context__": Map({"a": {"b": 2, "huge": Untouchable(x=1)}, "huge": Untouchable(x=1)}),
        "__steps__": Map({"huge": Untouchable(x=1)}),
        "__trigger__": Untouchable(x=1),
    }
    assert value("__context__.a.b + 1", scope) == 3
    assert value("__context__.a.b", scope) == 2
    assert value("$exists(__context__.a.c) or $exists(__steps__.other)", scope) is False


def test_what_a_parent_is_looked_up_in_is_handed_over_whole() -> None:
    for orders in ("orders", "order"):
        source = f'__context__.{orders}.lines.{{"line": n, "order": %.id}}'
        assert value(source) == [{"line": 1, "order": 7}, {"line": 2, "order": 7}]


def test_nothing_stays_from_one_evaluation_to_the_next() -> None:
    source = "($exists($x) ? 1 : ($x := 5; 2))"
    assert [value(source) for _ in range(3)] == [2, 2, 2]
    assert value('__context__.x ?? "none"', {"__context__": {"x": 1}}) == 1
    assert value('__context__.x ?? "none"', {"__context__": {}}) == "none"


def test_an_error_of_the_evaluator_has_a_code_a_reason_and_a_place() -> None:
    error = failure('__context__.amount + "x"')
    assert error.code == "EXPRESSION_FAILED"
    assert "T2002" in error.message
    located = failure('(1; 2; $substring("x", "y"))')
    assert "T0410" in located.message
    assert "near character" in located.message
    assert "broken" in failure('$error("broken")').message


def test_a_mistake_in_the_text_has_a_place() -> None:
    assert failure("1 +").message == "the expression ends too early (at character 4)"
    assert failure("(1; 2").code == "EXPRESSION_INVALID"
    assert failure("function($x){1}()(").code == "EXPRESSION_INVALID"
    assert failure("function($x)<n-n{1}").code == "EXPRESSION_INVALID"
    assert failure("__each__.x.1").code == "EXPRESSION_INVALID"


def test_an_expression_can_be_hashed_copied_and_pickled() -> None:
    expression = compile_expression("__context__.amount + 1")
    again = pickle.loads(pickle.dumps(expression))
    assert again == expression
    assert hash(again) == hash(expression)
    assert evaluate(again, SCOPE, MOMENT) == 501
    template = compile_template("a {{ 1 }}")
    assert pickle.loads(pickle.dumps(template)) == template


def test_undefined_is_one_falsy_thing_and_stays_itself() -> None:
    assert not UNDEFINED
    assert repr(UNDEFINED) == "UNDEFINED"
    assert pickle.loads(pickle.dumps(UNDEFINED)) is UNDEFINED
    assert copy.deepcopy([UNDEFINED])[0] is UNDEFINED


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("no braces } { at all", "no braces } { at all"),
        ("", ""),
        ("Dear {{ __context__.items[0].name }}!", "Dear a!"),
        ("{{__context__.amount}}{{__context__.amount}}", "500500"),
        ('{{ "}}" & "{{" }}', "}}{{"),
        ("{{ '}}' }}", "}}"),
        ('{{ {"a": {"b": 1}} }}', '{"a":{"b":1}}'),
        ('{{{"a": {"b": 1}}}}', '{"a":{"b":1}}'),
        ("{{ [1, 2.5, null, true] }}", "[1,2.5,null,true]"),
        ("{{ null }} {{ true }} {{ 1/3 }} {{ 0.1 + 0.2 }}", "null true 0.333333333333333 0.3"),
        ("{{ __context__.items ~> $map(function($i){ $i.name }) }}", '["a","b"]'),
        ("{{ __context__.absent ?? '' }}x", "x"),
        ("{{ /* }} */ 1 }}", "1"),
    ],
)
def test_a_template_is_text_with_values_in_it(source: str, expected: str) -> None:
    assert render(compile_template(source), SCOPE, MOMENT) == expected


def test_a_template_s_expressions_draw_different_chance() -> None:
    first, second = render(compile_template("{{ $uuid() }} {{ $uuid() }}"), SCOPE, MOMENT).split()
    assert first != second


@pytest.mark.parametrize("source", ["{{ 1", "{{ }}", "{{ 1 }", "{{ 1 } }", "{{ customer.name }}", "{{ 1 2 }}"])
def test_a_template_with_a_broken_expression_is_invalid(source: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template(source)
    assert caught.value.code == "EXPRESSION_INVALID"


def test_a_template_with_an_undefined_value_is_an_error() -> None:
    with pytest.raises(ExpressionError) as caught:
        render(compile_template("Dear {{ __context__.empty.name }}"), SCOPE, MOMENT)
    assert caught.value.code == "EXPRESSION_UNDEFINED"


def test_a_template_refers_to_what_its_expressions_refer_to() -> None:
    template = compile_template("{{ __context__.a }} {{ __steps__.b.c ?? 1 }}")
    assert [(str(r), r.required) for r in template.references] == [
        ("__context__.a", True),
        ("__steps__.b.c", False),
    ]
