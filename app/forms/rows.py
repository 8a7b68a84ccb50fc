"""A filter as a condition of SQL over the columns of one table. Names are quoted and values bound by SQLAlchemy; no
text of a form or of a request ever becomes SQL.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

from sqlalchemy import ColumnElement, Text, and_, bindparam, cast, not_, or_, true

from app.errors import Invalid
from engine.filters.paths import Path, follow
from engine.filters.table import Operator
from engine.filters.tree import Combinator, Comparison, ExpressionCondition, Filter, Group, Several
from engine.values import Const

_REFUSED: Final = frozenset(
    {Operator.REGEX, Operator.ARRAY_LENGTH, Operator.HAS_PROPERTY, Operator.NOT_HAS_PROPERTY}
)  # fmt: skip

Columns = Mapping[str, ColumnElement[Any]]


def unfit_for_rows(tree: Filter) -> str | None:
    """Why rows cannot be chosen by a filter; None when they can."""
    match tree:
        case Group(_, parts):
            return next((why for part in parts if (why := unfit_for_rows(part)) is not None), None)
        case ExpressionCondition():
            return "rows cannot be chosen by an expression"
        case Comparison(left, operator):
            if operator in _REFUSED:
                return f"rows cannot be chosen by {operator}"
            return None if len(left.members) == 1 else f"{left} is no column: a left side is the name of one"
        case _:
            assert_never(tree)


def columns_in(tree: Filter) -> list[str]:
    """The columns that a filter is about, if `unfit_for_rows` has nothing against it."""
    match tree:
        case Group(_, parts):
            return [name for part in parts for name in columns_in(part)]
        case Comparison(left):
            return [str(left.members[0])]
        case _:
            return []


def condition_of(tree: Filter, columns: Columns, values: Mapping[str, Any]) -> ColumnElement[bool]:
    """The filter as SQL; references are to `values`. Raises COLUMN_UNKNOWN, OPTIONS_VALUE_MISSING."""
    if isinstance(tree, Group):
        parts = [condition_of(part, columns, values) for part in tree.parts]
        if not parts:
            return true()
        return and_(*parts) if tree.combinator is Combinator.AND else or_(*parts)
    assert isinstance(tree, Comparison)
    name = tree.left.members[0]
    if name not in columns:
        raise Invalid("COLUMN_UNKNOWN", f"There is no column {name}.")
    return _compared(tree, columns[name], _operand(tree, values))


def _operand(tree: Comparison, values: Mapping[str, Any]) -> Any:
    match tree.right:
        case None:
            return None
        case Several(items):
            return [_single(item, values) for item in items]
        case Const() | Path():
            return _single(tree.right, values)
        case _:
            assert_never(tree.right)


def _single(operand: Const | Path, values: Mapping[str, Any]) -> Any:
    if isinstance(operand, Const):
        return operand.value
    found = follow(operand, dict(values))
    if found is None:
        raise Invalid("OPTIONS_VALUE_MISSING", f"The options depend on {operand.short}, which was not given.")
    return found


def _compared(tree: Comparison, column: ColumnElement[Any], right: Any) -> ColumnElement[bool]:
    match tree.operator:
        case Operator.EQUALS:
            return column.is_(None) if right is None else column == _bound(right, column)
        case Operator.NOT_EQUALS:
            return column.is_not(None) if right is None else column.is_distinct_from(_bound(right, column))
        case Operator.IN:
            return column.in_([_bound(item, column) for item in _listed(right)])
        case Operator.NOT_IN:
            return or_(column.is_(None), column.not_in([_bound(item, column) for item in _listed(right)]))
        case Operator.BETWEEN:
            return column.between(_bound(right[0], column), _bound(right[1], column))
        case Operator.NOT_BETWEEN:
            return not_(column.between(_bound(right[0], column), _bound(right[1], column)))
        case Operator.IS_EMPTY | Operator.NOT_EXISTS | Operator.IS_NOT_EMPTY | Operator.EXISTS:
            return _present(tree.operator, column)
        case Operator.CONTAINS | Operator.NOT_CONTAINS | Operator.STARTS_WITH | Operator.ENDS_WITH:
            return _like(tree, cast(column, Text), str(right))
        case _:
            return _ORDERED[tree.operator](column, _bound(right, column))


_ORDERED: Final[Mapping[Operator, Callable[[Any, Any], ColumnElement[bool]]]] = {
    Operator.GREATER_THAN: lambda column, value: column > value,
    Operator.GREATER_THAN_OR_EQUAL: lambda column, value: column >= value,
    Operator.LESS_THAN: lambda column, value: column < value,
    Operator.LESS_THAN_OR_EQUAL: lambda column, value: column <= value,
}


def _present(operator: Operator, column: ColumnElement[Any]) -> ColumnElement[bool]:
    match operator:
        case Operator.EXISTS:
            return column.is_not(None)
        case Operator.NOT_EXISTS:
            return column.is_(None)
        case Operator.IS_EMPTY:
            return or_(column.is_(None), cast(column, Text) == "")
        case _:
            return and_(column.is_not(None), cast(column, Text) != "")


def _like(tree: Comparison, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    exact = tree.case_sensitive
    match tree.operator:
        case Operator.STARTS_WITH:
            return (column.startswith if exact else column.istartswith)(text, autoescape=True)
        case Operator.ENDS_WITH:
            return (column.endswith if exact else column.iendswith)(text, autoescape=True)
        case _:
            found = (column.contains if exact else column.icontains)(text, autoescape=True)
            return found if tree.operator is Operator.CONTAINS else or_(column.is_(None), not_(found))


def _bound(value: Any, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The value as the column's type: PostgreSQL reads it from text, as it would read a literal."""
    match value:
        case None:
            text = None
        case bool():
            text = str(value).lower()
        case float() if value.is_integer():
            text = str(int(value))
        case _:
            text = str(value)
    return cast(bindparam(None, text, Text), column.type)


def _listed(right: Any) -> list[Any]:
    return right if isinstance(right, list) else [right]
