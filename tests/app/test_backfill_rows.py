"""What a source says, row by row, and what is made of it."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backfills.mapping import Loadable, Mapping, mapped, read_expression, read_time
from app.backfills.rows import BadRow, SourceRow, csv_rows, ndjson_rows, query_row
from app.errors import Invalid


def lines(text: str) -> Iterator[str]:
    return iter(text.splitlines(keepends=True))


def codes(found: list[SourceRow | BadRow]) -> list[tuple[int, str | None]]:
    return [(one.number, one.code if isinstance(one, BadRow) else None) for one in found]


def test_csv_has_columns_by_the_first_line_and_numbers_by_the_line() -> None:
    found = list(csv_rows(lines("id,name\n1,Ann\n\n2,Zoë\n"), None))
    assert found == [SourceRow(2, {"id": "1", "name": "Ann"}), SourceRow(4, {"id": "2", "name": "Zoë"})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_the_first_line_has(delimiter: str) -> None:
    text = delimiter.join(("id", "name")) + "\n" + delimiter.join(("1", "a:b")) + "\n"
    assert list(csv_rows(lines(text), None)) == [SourceRow(2, {"id": "1", "name": "a:b"})]


def test_a_delimiter_that_is_given_is_taken() -> None:
    assert list(csv_rows(lines("a:b,c\n1:2,3\n"), ":")) == [SourceRow(2, {"a": "1", "b,c": "2,3"})]


def test_a_quoted_cell_may_have_line_ends_and_the_next_row_keeps_its_line() -> None:
    found = list(csv_rows(lines('id,note\r\n1,"two\r\nlines, ""quoted"""\r\n2,plain\r\n'), None))
    assert found == [
        SourceRow(2, {"id": "1", "note": 'two\r\nlines, "quoted"'}),
        SourceRow(4, {"id": "2", "note": "plain"}),
    ]


def test_a_row_with_another_number_of_cells_is_bad_and_the_rest_goes_on() -> None:
    found = list(csv_rows(lines("a,b\n1,2,3\n4\n5,6\n"), None))
    assert codes(found) == [(2, "COLUMNS_WRONG"), (3, "COLUMNS_WRONG"), (4, None)]
    assert found[0] == BadRow(2, "COLUMNS_WRONG", "The header has 2 columns, this row 3.", ["1", "2", "3"])


def test_a_row_that_is_no_csv_is_bad_and_the_rest_goes_on() -> None:
    assert codes(list(csv_rows(lines('a,b\n"x"y,2\n5,6\n'), None))) == [(2, "CSV_INVALID"), (3, None)]
    assert codes(list(csv_rows(lines('a,b\n1,2\n"never closed,3\n'), None))) == [(2, None), (3, "CSV_INVALID")]


def test_what_is_not_utf_8_or_has_nul_characters_is_bad() -> None:
    text = b"a,b\n1,\xff\n2,x\n".decode(errors="surrogateescape")
    assert codes(list(csv_rows(lines(text), None))) == [(2, "TEXT_INVALID"), (3, None)]
    odd = [one for one in csv_rows(iter(["a,b\n", "1,\0\n", "2,x\n"]), None) if isinstance(one, BadRow)]
    assert [one.number for one in odd] == [2]
    assert codes(list(ndjson_rows(['{"a":"\udcff"}\n', '{"a":1}\n']))) == [(1, "TEXT_INVALID"), (2, None)]


@pytest.mark.parametrize("header", ["a,a\n", "a,,b\n", '"x"y,b\n'])
def test_a_header_that_names_no_column_or_one_twice_is_refused(header: str) -> None:
    with pytest.raises(Invalid) as refused:
        list(csv_rows(lines(header + "1,2\n"), None))
    assert refused.value.code == "HEADER_INVALID"


def test_a_column_that_is_not_there_is_refused_before_any_row() -> None:
    with pytest.raises(Invalid, match="There is no column b; there are a, c") as refused:
        list(csv_rows(lines("a,c\n1,2\n"), None, ["a", "b"]))
    assert refused.value.code == "COLUMN_UNKNOWN"


@pytest.mark.parametrize(
    "header",
    ["id," * 100_000, ",".join(f"c{n}" for n in range(100_000)), "x" * 100_000],
    ids=["repeated", "many", "long"],
)
def test_what_is_said_of_a_first_line_is_short_however_long_the_line_is(header: str) -> None:
    with pytest.raises(Invalid) as refused:
        list(csv_rows(lines(header + "\n"), None, ["b"]))
    assert len(refused.value.message) < 1_500


def test_an_empty_file_has_no_rows() -> None:
    assert list(csv_rows(lines(""), None)) == []
    assert list(csv_rows(lines("a,b\n"), None)) == []
    assert list(ndjson_rows(lines("\n\n"))) == []


def test_ndjson_has_an_object_on_each_line() -> None:
    found = list(ndjson_rows(lines('{"a": 1.5, "b": [null]}\n\n{"a": "x"}\n')))
    assert found == [SourceRow(1, {"a": 1.5, "b": [None]}), SourceRow(3, {"a": "x"})]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"a": ', "JSON_INVALID"),
        ("[1]", "NOT_AN_OBJECT"),
        ('{"a": NaN}', "JSON_INVALID"),
        ('{"a": 1, "a": 2}', "JSON_MEMBER_REPEATED"),
        ('{"a": "\\u0000"}', "TEXT_NOT_STORABLE"),
        ('{"a":' + "[" * 200 + "]" * 200 + "}", "JSON_TOO_DEEP"),
    ],
)
def test_a_line_that_is_no_object_is_bad_and_the_rest_goes_on(line: str, code: str) -> None:
    assert codes(list(ndjson_rows([line + "\n", '{"a": 1}\n']))) == [(1, code), (2, None)]


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=2, max_size=2)))
def test_every_table_that_is_written_as_csv_is_read_back(table: list[list[str]]) -> None:
    import csv
    import io

    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *table])
    written.seek(0)
    found = list(csv_rows(written, ","))
    assert [list(one.cells.values()) for one in found if isinstance(one, SourceRow)] == table


@given(st.text())
def test_nothing_that_a_file_may_say_stops_the_reading(text: str) -> None:
    for rows in (csv_rows(lines("a,b\n" + text), None), ndjson_rows(lines(text))):
        numbers = [one.number for one in rows]
        assert numbers == sorted({*numbers})


def test_what_cannot_be_stored_is_not_in_what_is_kept_of_a_bad_row() -> None:
    bad = query_row(1, {"a": "1\0", "b": ["\ud800"]})
    assert isinstance(bad, BadRow)
    assert (bad.code, bad.raw) == ("TEXT_INVALID", {"a": "1\ufffd", "b": ["\ufffd"]})
    (cells,) = csv_rows(lines("a,b\n1\0,2\n"), None)
    assert isinstance(cells, BadRow)
    assert (cells.code, cells.raw) == ("TEXT_INVALID", ["1\ufffd", "2"])


ROW = SourceRow(7, {"id": "r-1", "service": 12, "who": "Ann", "at": "2026-01-31T09:00:00Z", "empty": ""})


def test_all_columns_are_the_context_unless_some_are_chosen() -> None:
    assert mapped(ROW, Mapping()) == Loadable(7, ROW.cells)
    chosen = Mapping(entity_id="service", event_id="id", name="who", context=(("customer", "who"),))
    assert mapped(ROW, chosen) == Loadable(7, {"customer": "Ann"}, "r-1", "12", "Ann")


def test_an_expression_makes_the_context_from_the_row() -> None:
    expression = read_expression('{"who": $uppercase(__trigger__.who), "n": __trigger__.service + 1}')
    assert mapped(ROW, Mapping(expression=expression)) == Loadable(7, {"who": "ANN", "n": 13})


@pytest.mark.parametrize(
    ("expression", "code"),
    [("__trigger__.nothing", "EXPRESSION_UNDEFINED"), ("1 + 1", "CONTEXT_NOT_AN_OBJECT")],
)
def test_a_row_that_the_expression_fails_for_is_bad(expression: str, code: str) -> None:
    bad = mapped(ROW, Mapping(expression=read_expression(expression)))
    assert isinstance(bad, BadRow)
    assert (bad.number, bad.code, bad.raw) == (7, code, ROW.cells)


@pytest.mark.parametrize("text", ["{", "__context__.a", "$nope("])
def test_an_expression_that_is_none_or_sees_more_than_the_row_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_expression(text)
    assert refused.value.code == "MAPPING_INVALID"


@pytest.mark.parametrize(
    ("mapping", "code"),
    [
        (Mapping(event_id="empty"), "VALUE_MISSING"),
        (Mapping(entity_id="nothing"), "VALUE_MISSING"),
        (Mapping(context=(("a", "nothing"),)), "VALUE_MISSING"),
        (Mapping(time="who"), "TIME_INVALID"),
        (Mapping(time="service"), "TIME_INVALID"),
    ],
)
def test_a_row_without_what_the_mapping_needs_is_bad(mapping: Mapping, code: str) -> None:
    bad = mapped(ROW, mapping)
    assert isinstance(bad, BadRow)
    assert bad.code == code


def test_an_id_that_is_too_long_is_bad() -> None:
    bad = mapped(SourceRow(1, {"id": "x" * 201}), Mapping(entity_id="id"))
    assert isinstance(bad, BadRow)
    assert bad.code == "VALUE_TOO_LONG"


def test_only_rows_of_the_time_that_is_asked_for_are_taken() -> None:
    def taken(since: str, until: str) -> bool:
        return mapped(ROW, Mapping(time="at", since=read_time(since), until=read_time(until))) is not None

    assert taken("2026-01-31T09:00:00Z", "2026-02-01")
    assert taken("2026-01-31T10:00:00+01:00", "2026-01-31T09:00:00.001")
    assert not taken("2026-01-31T09:00:01Z", "2026-02-01")
    assert not taken("2026-01-01", "2026-01-31T09:00:00Z")


def test_a_line_that_is_far_too_long_is_bad_before_it_is_read() -> None:
    text = '{"a": [' + "[]," * 2_000_000 + "[]]}\n"
    assert codes(list(ndjson_rows([text, '{"a": 1}\n']))) == [(1, "ROW_TOO_LARGE"), (2, None)]


@pytest.mark.parametrize(("first", "needed"), [("a," * 50_000, ()), (",".join(map(str, range(50_000))), ("a",))])
def test_what_is_said_of_a_header_of_very_many_columns_is_short(first: str, needed: tuple[str, ...]) -> None:
    with pytest.raises(Invalid) as refused:
        list(csv_rows([f"{first}\n"], ",", needed))
    assert len(refused.value.message) < 5_000
