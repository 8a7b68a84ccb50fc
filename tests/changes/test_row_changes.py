"""A transaction's messages become changes of rows, with what is known of the rows before."""

from datetime import UTC, datetime

import pytest

from app.changes.pgoutput import Begin, Column, Commit, Delete, Insert, Message, PgoutputError, Relation, Unchanged
from app.changes.pgoutput import Update as Updated
from app.changes.row_changes import Assembler, Operation, RowChange, TransactionEnd, lsn_number, lsn_text

AT = datetime(2026, 1, 31, 9, tzinfo=UTC)
BEGIN = Begin(500, AT, 77)
COMMIT = Commit(500, 520, AT)
# With replica identity FULL all columns are marked as its key.
ORDERS = Relation(9, "public", "orders", "d", (Column("id", 23, True), Column("note", 25, False)))
FULL = Relation(9, "public", "orders", "f", (Column("id", 23, True), Column("note", 25, True)))


def assembled(*messages: Message, lsns: tuple[int, ...] = ()) -> list[RowChange | TransactionEnd]:
    placed = zip(lsns or range(100, 100 + len(messages)), messages, strict=True)
    return list(Assembler().take(placed))


def only_change(relation: Relation, message: Message) -> RowChange:
    change, end = assembled(BEGIN, relation, message, COMMIT)
    assert isinstance(change, RowChange)
    assert end == TransactionEnd(520)
    return change


def test_an_insert_has_no_row_before() -> None:
    change = only_change(ORDERS, Insert(9, ("1", "x")))
    assert (change.operation, change.before, change.after) == (Operation.INSERT, None, {"id": 1, "note": "x"})
    assert (change.schema, change.table, change.at) == ("public", "orders", "2026-01-31T09:00:00+00:00")
    assert change.position == {"lsn": "0/66", "txid": 77}
    assert change.changed_columns() == []


def test_an_update_with_the_whole_old_row_knows_what_changed() -> None:
    change = only_change(FULL, Updated(9, ("1", "x"), True, ("1", "y")))
    assert (change.before, change.after) == ({"id": 1, "note": "x"}, {"id": 1, "note": "y"})
    assert change.changed_columns() == ["note"]


def test_an_update_with_nothing_of_the_old_row_knows_its_key_alone() -> None:
    change = only_change(ORDERS, Updated(9, None, False, ("1", "y")))
    assert (change.before, change.before_whole) == ({"id": 1}, False)
    assert change.changed_columns() is None


def test_a_key_that_changed_is_told() -> None:
    change = only_change(ORDERS, Updated(9, ("1", None), False, ("2", "y")))
    assert (change.before, change.after) == ({"id": 1}, {"id": 2, "note": "y"})


def test_a_large_value_that_did_not_change_is_taken_from_the_old_row() -> None:
    change = only_change(FULL, Updated(9, ("1", "long"), True, ("2", Unchanged.TOAST)))
    assert change.after == {"id": 2, "note": "long"}
    assert (change.changed_columns(), change.absent) == (["id"], ())


def test_a_large_value_that_nobody_tells_is_marked_as_absent() -> None:
    change = only_change(ORDERS, Updated(9, None, False, ("1", Unchanged.TOAST)))
    assert (change.after, change.absent) == ({"id": 1}, ("note",))


def test_a_deleted_row_is_told_as_far_as_it_is_known() -> None:
    assert only_change(ORDERS, Delete(9, ("1", None), False)).before == {"id": 1}
    assert only_change(FULL, Delete(9, ("1", "x"), True)).before == {"id": 1, "note": "x"}


def test_rows_of_one_record_of_the_log_have_keys_of_their_own() -> None:
    rows = [Insert(9, (str(n), None)) for n in range(3)]
    changes = assembled(BEGIN, ORDERS, *rows, rows[0], COMMIT, lsns=(1, 2, 3, 3, 3, 4, 5))
    assert [one.key for one in changes if isinstance(one, RowChange)] == ["0/3/0", "0/3/1", "0/3/2", "0/4/0"]


def test_true_and_one_are_different_values() -> None:
    relation = Relation(9, "public", "o", "f", (Column("a", 3802, True), Column("b", 3802, True)))
    change = only_change(relation, Updated(9, ("1", "[1]"), True, ("true", "[true]")))
    assert change.changed_columns() == ["a", "b"]


@pytest.mark.parametrize("messages", [(BEGIN, Insert(9, ("1", "x"))), (ORDERS, Insert(9, ("1", "x")))])
def test_a_change_out_of_turn_is_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(PgoutputError, match="out of turn"):
        assembled(*messages)


def test_a_row_of_another_shape_is_refused() -> None:
    with pytest.raises(PgoutputError, match="columns"):
        assembled(BEGIN, ORDERS, Insert(9, ("1",)))


def test_positions_are_written_as_postgres_writes_them() -> None:
    assert lsn_text(0x16B374D848) == "16/B374D848"
    assert lsn_number("16/B374D848") == 0x16B374D848
