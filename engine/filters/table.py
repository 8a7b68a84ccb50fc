"""The operators of filters, as data: what they are called in each vocabulary, for which types, with which operand.

There are 22 operators and many more spellings: an alias, or an operator that is another one with its type said
(`after` is `greaterThan` for dates). Every spelling is accepted in every form of a condition.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from engine.json_types import JSON, UNDEFINED, Undefined


class FieldType(StrEnum):
    """How a condition reads both of its sides; `any` takes them as they are."""

    ANY = "any"
    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "dateTime"
    ARRAY = "array"
    OBJECT = "object"


TYPE_NAMES: Final = {**{str(each): each for each in FieldType}, "date": FieldType.DATE}


class Operator(StrEnum):
    """What a condition compares; the value is its name in the normal form."""

    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    CONTAINS = "contains"
    NOT_CONTAINS = "not_contains"
    STARTS_WITH = "startsWith"
    ENDS_WITH = "endsWith"
    REGEX = "regex"
    GREATER_THAN = "greaterThan"
    GREATER_THAN_OR_EQUAL = "greaterThanOrEqual"
    LESS_THAN = "lessThan"
    LESS_THAN_OR_EQUAL = "lessThanOrEqual"
    BETWEEN = "between"
    NOT_BETWEEN = "notBetween"
    IN = "in"
    NOT_IN = "not_in"
    IS_EMPTY = "isEmpty"
    IS_NOT_EMPTY = "isNotEmpty"
    EXISTS = "exists"
    NOT_EXISTS = "notExists"
    ARRAY_LENGTH = "arrayLength"
    HAS_PROPERTY = "hasProperty"
    NOT_HAS_PROPERTY = "notHasProperty"


class OperandKind(StrEnum):
    """What stands on the right of an operator; the value is how the reference says it."""

    NONE = "–"
    VALUE = "a value of the type, or null"
    PART = "a text, or any item of a list"
    TEXT = "a text"
    PATTERN = "a pattern"
    ORDERED = "a number, a date or a text"
    PAIR = "a list of two such: low, high"
    LIST = "a list of values, or a reference to one"
    LENGTH = "a whole number"
    NAME = "a member's name"


class Vocabulary(StrEnum):
    """Whose documents speak so."""

    API = "API"
    UI = "UI"
    ENGINE = "Engine"


@dataclass(frozen=True, slots=True)
class Rule:
    """One operator. `types` are those it may be declared for; where there is but one, it is implied. `words` put it
    into a sentence. `cased`: whether `caseSensitive` matters to it; `typed`: whether the type does.
    """

    types: tuple[FieldType, ...]
    operand: OperandKind
    words: str
    negates: Operator | None = None
    cased: bool = False
    typed: bool = True


@dataclass(frozen=True, slots=True)
class Spelling:
    """A name of an operator: in whose documents it is found, and the type and operand that it says at once."""

    name: str
    operator: Operator
    found_in: tuple[Vocabulary, ...]
    type: FieldType | None = None
    operand: JSON | Undefined = UNDEFINED


_ANY = FieldType.ANY
_EVERY = tuple(FieldType)
_SCALAR = (_ANY, FieldType.STRING, FieldType.NUMBER, FieldType.BOOLEAN, FieldType.DATE)
_ORDERED = (_ANY, FieldType.NUMBER, FieldType.DATE, FieldType.STRING)
_HOLDING = (_ANY, FieldType.STRING, FieldType.ARRAY)
_TEXT = (FieldType.STRING,)
_LIST = (FieldType.ARRAY,)
_OBJECT = (FieldType.OBJECT,)

RULES: Final[dict[Operator, Rule]] = {
    Operator.EQUALS: Rule(_EVERY, OperandKind.VALUE, "="),
    Operator.NOT_EQUALS: Rule(_EVERY, OperandKind.VALUE, "≠", Operator.EQUALS),
    Operator.CONTAINS: Rule(_HOLDING, OperandKind.PART, "contains", cased=True),
    Operator.NOT_CONTAINS: Rule(_HOLDING, OperandKind.PART, "does not contain", Operator.CONTAINS, cased=True),
    Operator.STARTS_WITH: Rule(_TEXT, OperandKind.TEXT, "starts with", cased=True),
    Operator.ENDS_WITH: Rule(_TEXT, OperandKind.TEXT, "ends with", cased=True),
    Operator.REGEX: Rule(_TEXT, OperandKind.PATTERN, "matches", cased=True),
    Operator.GREATER_THAN: Rule(_ORDERED, OperandKind.ORDERED, ">"),
    Operator.GREATER_THAN_OR_EQUAL: Rule(_ORDERED, OperandKind.ORDERED, "≥"),
    Operator.LESS_THAN: Rule(_ORDERED, OperandKind.ORDERED, "<"),
    Operator.LESS_THAN_OR_EQUAL: Rule(_ORDERED, OperandKind.ORDERED, "≤"),
    Operator.BETWEEN: Rule(_ORDERED, OperandKind.PAIR, "is between"),
    Operator.NOT_BETWEEN: Rule(_ORDERED, OperandKind.PAIR, "is not between", Operator.BETWEEN),
    Operator.IN: Rule(_SCALAR, OperandKind.LIST, "is one of"),
    Operator.NOT_IN: Rule(_SCALAR, OperandKind.LIST, "is none of", Operator.IN),
    Operator.IS_EMPTY: Rule(_EVERY, OperandKind.NONE, "is empty"),
    Operator.IS_NOT_EMPTY: Rule(_EVERY, OperandKind.NONE, "is not empty", Operator.IS_EMPTY),
    Operator.EXISTS: Rule(_EVERY, OperandKind.NONE, "exists", typed=False),
    Operator.NOT_EXISTS: Rule(_EVERY, OperandKind.NONE, "does not exist", Operator.EXISTS, typed=False),
    Operator.ARRAY_LENGTH: Rule(_LIST, OperandKind.LENGTH, "has the length"),
    Operator.HAS_PROPERTY: Rule(_OBJECT, OperandKind.NAME, "has the member"),
    Operator.NOT_HAS_PROPERTY: Rule(_OBJECT, OperandKind.NAME, "lacks the member", Operator.HAS_PROPERTY),
}

_API = (Vocabulary.API,)
_UI = (Vocabulary.UI,)
_ENGINE = (Vocabulary.ENGINE,)
_OLD = (Vocabulary.API, Vocabulary.ENGINE)
_ALL = tuple(Vocabulary)
_DATE = FieldType.DATE

SPELLINGS: Final[tuple[Spelling, ...]] = (
    Spelling("equals", Operator.EQUALS, _ALL),
    Spelling("eq", Operator.EQUALS, _ENGINE),
    Spelling("=", Operator.EQUALS, _ENGINE),
    Spelling("dateEquals", Operator.EQUALS, _UI, _DATE),
    Spelling("isTrue", Operator.EQUALS, _UI, FieldType.BOOLEAN, True),
    Spelling("isFalse", Operator.EQUALS, _UI, FieldType.BOOLEAN, False),
    Spelling("not_equals", Operator.NOT_EQUALS, _ALL),
    Spelling("ne", Operator.NOT_EQUALS, _ENGINE),
    Spelling("!=", Operator.NOT_EQUALS, _ENGINE),
    Spelling("dateNotEquals", Operator.NOT_EQUALS, _UI, _DATE),
    Spelling("contains", Operator.CONTAINS, _ALL),
    Spelling("arrayContains", Operator.CONTAINS, _UI, FieldType.ARRAY),
    Spelling("not_contains", Operator.NOT_CONTAINS, _ALL),
    Spelling("arrayNotContains", Operator.NOT_CONTAINS, _UI, FieldType.ARRAY),
    Spelling("startsWith", Operator.STARTS_WITH, _UI),
    Spelling("starts_with", Operator.STARTS_WITH, _OLD),
    Spelling("endsWith", Operator.ENDS_WITH, _UI),
    Spelling("ends_with", Operator.ENDS_WITH, _OLD),
    Spelling("regex", Operator.REGEX, (Vocabulary.UI, Vocabulary.ENGINE)),
    Spelling("matches", Operator.REGEX, _ENGINE),
    Spelling("greaterThan", Operator.GREATER_THAN, _UI),
    Spelling("greater_than", Operator.GREATER_THAN, _OLD),
    Spelling("gt", Operator.GREATER_THAN, _ENGINE),
    Spelling(">", Operator.GREATER_THAN, _ENGINE),
    Spelling("after", Operator.GREATER_THAN, _ALL, _DATE),
    Spelling("greaterThanOrEqual", Operator.GREATER_THAN_OR_EQUAL, _UI),
    Spelling("gte", Operator.GREATER_THAN_OR_EQUAL, _ENGINE),
    Spelling(">=", Operator.GREATER_THAN_OR_EQUAL, _ENGINE),
    Spelling("afterOrEqual", Operator.GREATER_THAN_OR_EQUAL, _UI, _DATE),
    Spelling("lessThan", Operator.LESS_THAN, _UI),
    Spelling("less_than", Operator.LESS_THAN, _OLD),
    Spelling("lt", Operator.LESS_THAN, _ENGINE),
    Spelling("<", Operator.LESS_THAN, _ENGINE),
    Spelling("before", Operator.LESS_THAN, _ALL, _DATE),
    Spelling("lessThanOrEqual", Operator.LESS_THAN_OR_EQUAL, _UI),
    Spelling("lte", Operator.LESS_THAN_OR_EQUAL, _ENGINE),
    Spelling("<=", Operator.LESS_THAN_OR_EQUAL, _ENGINE),
    Spelling("beforeOrEqual", Operator.LESS_THAN_OR_EQUAL, _UI, _DATE),
    Spelling("between", Operator.BETWEEN, _ALL),
    Spelling("notBetween", Operator.NOT_BETWEEN, _UI),
    Spelling("in", Operator.IN, _OLD),
    Spelling("not_in", Operator.NOT_IN, _OLD),
    Spelling("isEmpty", Operator.IS_EMPTY, _UI),
    Spelling("is_empty", Operator.IS_EMPTY, _OLD),
    Spelling("dateIsEmpty", Operator.IS_EMPTY, _UI, _DATE),
    Spelling("isNotEmpty", Operator.IS_NOT_EMPTY, _UI),
    Spelling("is_not_empty", Operator.IS_NOT_EMPTY, _OLD),
    Spelling("exists", Operator.EXISTS, _UI),
    Spelling("is_not_null", Operator.EXISTS, _ENGINE),
    Spelling("notExists", Operator.NOT_EXISTS, _UI),
    Spelling("is_null", Operator.NOT_EXISTS, _ENGINE),
    Spelling("arrayLength", Operator.ARRAY_LENGTH, _UI),
    Spelling("hasProperty", Operator.HAS_PROPERTY, _UI),
    Spelling("notHasProperty", Operator.NOT_HAS_PROPERTY, _UI),
)

BY_NAME: Final = {spelling.name: spelling for spelling in SPELLINGS}
