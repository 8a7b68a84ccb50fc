"""Everything an expression does is counted: nothing runs for ever, grows without limit or ends the process."""

import time

import pytest

from engine.bounds import DATA, MAX_DEPTH, RESULT, Meter, measure
from engine.errors import ExpressionError
from engine.expression import Moment, compile_expression, evaluate
from engine.json_types import JSON

MOMENT = Moment(0, "seed")
SCOPE: dict[str, object] = {
    "__context__": {"n": list(range(2_000)), "big": "x" * 500_000, "wide": [{"id": i} for i in range(3_000)]}
}


def failure(source: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        evaluate(compile_expression(source), SCOPE, MOMENT)
    return caught.value


def nested(depth: int) -> JSON:
    value: JSON = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "source",
    [
        "1" + "+1" * 501,
        '"a"' + '&"a"' * 501,
        "true" + " and true" * 501,
        "__context__" + ".a" * 501,
        "(" * 101 + "1" + ")" * 101,
        "[" * 101 + "1" + "]" * 101,
        '{"a":' * 101 + "1" + "}" * 101,
        "$string(" * 101 + "1" + ")" * 101,
        "function($x){" * 51 + "1" + "}" * 51 + "(" * 101,
        "-" * 300 + "1",
        "true?1:" * 300 + "1",
        "true?" * 300 + "1",
        "$a:=" * 300 + "1",
        "1" + "~>$string" * 300,
        "__context__" + "[0]" * 300,
        "[" * 8_000,
        '"' + "é" * 4_100 + '"',
        " " * 8_193,
        "/* ",
        "$contains('a', /" + "(" * 1_100 + ")" * 1_100 + "/)",
    ],
)
def test_text_that_is_too_long_or_too_deep_is_refused_before_the_library_sees_it(source: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source)
    assert caught.value.code == "EXPRESSION_INVALID"


@pytest.mark.parametrize(
    "source",
    [
        "1" + "+1" * 500,
        '"a"' + '&"a"' * 500,
        "(" * 100 + "1" + ")" * 100,
        "[" * 100 + "1" + "]" * 100,
        "(1+" * 90 + "1" + ")" * 90,
        "true?false:" * 150 + "1",
        "1" + "~>$string" * 150,
        "(" + "1;" * 4_000 + ")",
    ],
)
def test_text_within_the_limits_is_evaluated(source: str) -> None:
    evaluate(compile_expression(source), SCOPE, MOMENT)


@pytest.mark.parametrize(
    ("source", "which"),
    [
        ("[1..10000000]", "range"),
        ("[1..5000].[1..5000]", "values"),
        ("($f := function($n){ $f($n + 1) }; $f(0))", "function calls"),
        ("($f := function(){ $g() }; $g := function(){ $f() }; $f())", "function calls"),
        ("($f := function($n){ 1 + $f($n + 1) }; $f(0))", "deeper"),
        ("($f := function($n){ 1 + $g($n) }; $g := function($n){ 1 + $f($n) }; $f(0))", "deeper"),
        ("($f := function($n){ [$f($n)] }; $f(0))", "deeper"),
        ("($f := function($s){ $f($s & 'x') }; $f(''))", "handles more than"),
        ("($f := function($s){ $f($s & $s) }; $f('xxxxxxxx'))", "characters"),
        ("($f := function($s){ 1 + $f($s & $s) }; $f('xxxxxxxx'))", "characters"),
        ("($f := function($s){ 1 + ([$s, $s] ~> $f) }; $f([1]))", "values"),
        ("($f := function($s){ 1 + ($s ~> $append($s) ~> $f()) }; $f([1]))", "values"),
        (
            "($f := function($s, $n){ $g($s & $s, ?) }; $g := function($s, $n){ $f($s, 1)(1) }; $f('xxxxxxxx', 1)(1))",
            "characters",
        ),
        ("($f := function($h){ $h($h) }; $f($f))", ""),
        ('$reduce([1..60], function($a, $b){ $a & $a }, "xxxxxxxx")', "characters"),
        ("$reduce([1..60], function($a, $b){ $append($a, $a) }, [1])", "values"),
        ('$reduce([1..60], function($a, $b){ {"l": $a, "r": $a} }, 1)', "values"),
        ("$reduce([1..60], function($a, $b){ [$a, $a] }, 1)", "values"),
        ("$reduce([1..300], function($a, $b){ {'a': $a} }, 1)", "deeper"),
        ("$reduce([1..60], function($a, $b){ $merge([{'a': $a}, {'b': $a}]) }, {})", "values"),
        ("$reduce([1..60], function($a, $b){ $join([$a, $a]) }, 'xxxxxxxx')", "$join"),
        ("(" + "$a := [1..9]; " + "$a := $append($a, $a); " * 60 + "$a)", "values"),
        ('($a := "xxxxxxxx"; ' + "$a := $a & $a; " * 60 + "$a)", "characters"),
        ('($a := {"x": 1}; ' + '$a := {"l": $a, "r": $a}; ' * 60 + "$a = $a)", "values"),
        ("($f := $append; $a := [1..9]; " + "$a := $f($a, $a); " * 60 + "$a)", "values"),
        ("($a := [1..9]; " + "$a := $a ~> $append($a); " * 60 + "$a)", "values"),
        ("($a := [1..9]; " + "$a := ($a ?? 1) ~> $append($a); " * 60 + "$a)", "values"),
        ("[" + ",".join(["__context__.big"] * 50) + "]", "characters"),
        ("$map([1..1000], function($x){ __context__.n })", "values"),
        ("[1..1000].(__context__.n)", "values"),
        ("[1..1000].{'n': __context__.n}", "values"),
        ("__context__.n[[0, 0]]", "positions"),
        ('$pad("x", 1000000000)', "$pad"),
        ('"x" ~> $pad(-1000000000)', "$pad"),
        ('$join($map([1..9999], $string), $pad("x", 1000))', "$join"),
        ('$replace(__context__.big, "x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy")', "$replace"),
        ('$replace(__context__.big, /x*/, "$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0$0")', "$replace"),
        ('$split(__context__.big, "")', "$split"),
        ("$split(__context__.big, /x{1}/)", "values"),
        ("$map([1..3], function($x){ [1..2000]{'a': $} })", "grouped"),
        ("$keys($map([1..3001], function($x){ {$string($x): 1} }))", "$keys"),
        ("$map([1..3001], function($x){ {$string($x): 1} }) ~> $merge ~> $spread", "$spread"),
        ("$distinct([1..3000])", "$distinct"),
        ("$formatInteger(1e9, 'I')", "roman"),
        ("$fromMillis(0, '[Y,1000000-1000000]')", "picture"),
        ("__context__.big & __context__.big & __context__.big", "characters"),
    ],
)
def test_what_would_not_end_or_not_fit_is_stopped_by_a_count(source: str, which: str) -> None:
    # Of this thread: how long it takes on the clock says how busy the machine is.
    started = time.thread_time()
    error = failure(source)
    assert error.code == "EXPRESSION_LIMIT"
    assert which in error.message
    assert time.thread_time() - started < 2


def test_a_catastrophic_pattern_takes_no_time() -> None:
    started = time.perf_counter()
    assert evaluate(compile_expression('$contains("' + "a" * 5_000 + '!", /(a+)+$/)'), {}, MOMENT) is False
    assert time.perf_counter() - started < 1


def test_a_tail_call_is_a_loop() -> None:
    source = "($f := function($n){ $n = 0 ? 'done' : $f($n - 1) }; $f(20000))"
    assert evaluate(compile_expression(source), {}, MOMENT) == "done"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("$count($map(__context__.wide, function($v){ $v.id }))", 3_000),
        ("$reduce(__context__.n, function($a, $b){ $a + $b })", 1_999_000),
        ("$count($reduce([1..500], function($a, $b){ $append($a, $b) }, []))", 500),
        ("$count($sort(__context__.wide[[0..499]], function($a, $b){ $a.id < $b.id }))", 500),
        ("$length(__context__.big)", 500_000),
        ("$count([1..10000])", 10_000),
    ],
)
def test_ordinary_work_is_well_within_the_limits(source: str, expected: int) -> None:
    assert evaluate(compile_expression(source), SCOPE, MOMENT) == expected


def test_a_limit_is_the_same_however_fast_the_machine_is() -> None:
    source = "($f := function($n){ $n >= %d ? 0 : $f($n + 1) }; $f(1))"
    assert evaluate(compile_expression(source % 50_000), {}, MOMENT) == 0
    assert failure(source % 50_001).code == "EXPRESSION_LIMIT"


def test_a_value_is_measured_by_its_parts_its_text_and_its_depth() -> None:
    assert measure({"ab": [1, "cde", None]}, RESULT) == (5, 5)
    assert measure(nested(MAX_DEPTH - 1), RESULT)[0] == MAX_DEPTH
    with pytest.raises(ExpressionError, match="nested deeper"):
        measure(nested(MAX_DEPTH), RESULT)
    with pytest.raises(ExpressionError, match="nested deeper"):
        evaluate(compile_expression("[__context__]"), {"__context__": nested(100_000)}, MOMENT)
    with pytest.raises(ExpressionError, match="values"):
        measure([0] * 100_001, RESULT)
    with pytest.raises(ExpressionError, match="characters"):
        measure(["x" * 1_048_577], RESULT)
    with pytest.raises(ExpressionError, match="values"):
        measure([0] * 300_000, DATA)


def test_work_adds_up() -> None:
    meter = Meter()
    for _ in range(10):
        meter.weigh([0] * 90_000)
    meter.weigh([0] * 90_000)
    with pytest.raises(ExpressionError, match="handles more than"):
        meter.weigh([0] * 90_000)
