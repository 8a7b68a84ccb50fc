"""The shapes of a form: what somebody may be asked for, as data. docs/triggers.md is the reference."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

MOST_FIELDS: Final = 200
MOST_CHOICES: Final = 1_000
TAGS: Final = (
    "string", "number", "boolean", "options", "multiOptions", "collection", "fixedCollection", "resourceLocator",
    "dateTime", "json", "hidden", "notice", "credentialsSelect", "filter", "assignmentCollection",
)  # fmt: skip

FieldName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]
Text = Annotated[str, StringConstraints(max_length=2_000)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
# The names of PostgreSQL, which are quoted wherever they are used.
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63)]
ChoiceValue = bool | int | float | Annotated[str, StringConstraints(max_length=500)]


class Shape(BaseModel):
    """A part of a form; nothing unknown, camelCase."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=False
    )


class Rule(Shape):
    """A rule of validation: `regex`; `length` and `range` with `min` and/or `max`; `maxLength` with `max`; `custom`
    with `expr`, JSONata that sees `__context__.value` and `__context__.properties` and says true.
    """

    type: Literal["regex", "length", "maxLength", "range", "custom"]
    regex: Word | None = None
    min: int | float | None = None
    max: int | float | None = None
    expr: Annotated[str, StringConstraints(min_length=1, max_length=2_000)] | None = None
    error_message: Text | None = None


class DisplayOptions(Shape):
    """When a field is shown: `show` where all its members match, `hide` where any does. A member names another field
    of the same level and lists values of it. `hideOnCloud` is for editors.
    """

    show: dict[str, list[Any]] = {}
    hide: dict[str, list[Any]] = {}
    hide_on_cloud: bool = False


class TypeOptions(Shape):
    """What a type can be told: bounds, where options come from, how an editor shows it."""

    password: bool = False
    rows: int | None = Field(default=None, ge=1)
    editor: Literal["code", "js", "html", "sql"] | None = None
    load_options_method: Word | None = None
    load_options_depends_on: list[Word] = []
    search_list_method: Word | None = None
    searchable: bool = False
    min_value: int | float | None = None
    max_value: int | float | None = None
    number_precision: int | None = Field(default=None, ge=0, le=15)
    multiple_values: bool = False
    sortable: bool = False
    resource_mapper_method: Word | None = None
    case_sensitive: bool | None = None
    allowed_combinators: list[Literal["AND", "OR"]] = []
    max_conditions: int | None = Field(default=None, ge=1)


class Choice(Shape):
    """One of a field's options: `value` is stored, `name` is shown."""

    name: Word
    value: ChoiceValue
    description: Text | None = None


class StaticSource(Shape):
    """Options that stand in the form."""

    type: Literal["static"]
    options: list[Choice] = Field(max_length=MOST_CHOICES)


class DatabaseSource(Shape):
    """Options that are rows of a table: `where` is a filter over its columns, whose references are to what is asked
    with. `cacheTtl` is in seconds.
    """

    type: Literal["database"]
    connection: Word = "millrace"
    schema_: Identifier = Field(default="public", alias="schema")
    table: Identifier
    value_column: Identifier
    label_column: Identifier | None = None
    where: dict[str, Any] | None = None
    order_by: Identifier | None = None
    descending: bool = False
    cache: bool = True
    cache_ttl: int = Field(default=60, ge=0, le=86_400)


Source = Annotated[StaticSource | DatabaseSource, Field(discriminator="type")]


class _Field(Shape):
    name: FieldName
    display_name: Word
    description: Text | None = None
    required: bool = False
    default: Any = None
    display_options: DisplayOptions = DisplayOptions()
    type_options: TypeOptions = TypeOptions()
    validation: list[Rule] = Field(default=[], max_length=20)
    placeholder: Text | None = None
    hint: Text | None = None
    no_data_expression: bool = False


class PlainField(_Field):
    """A field that one value or a list of such fills."""

    type: Literal[
        "string", "number", "boolean", "dateTime", "json", "hidden", "notice", "credentialsSelect", "filter",
        "assignmentCollection",
    ]  # fmt: skip


class ChoiceField(_Field):
    """One (`options`) or several (`multiOptions`) of a list, which stands here or comes from a source."""

    type: Literal["options", "multiOptions"]
    options: list[Choice] = Field(default=[], max_length=MOST_CHOICES)
    data_source: Source | None = None


class CollectionField(_Field):
    """An object with any of these fields."""

    type: Literal["collection"]
    options: list["FormField"] = Field(max_length=MOST_FIELDS)


class FieldGroup(Shape):
    """Fields that are given together, one or, with `multipleValues`, many times."""

    name: FieldName
    display_name: Word
    values: list["FormField"] = Field(max_length=MOST_FIELDS)


class FixedCollectionField(_Field):
    """An object whose members are groups."""

    type: Literal["fixedCollection"]
    options: list[FieldGroup] = Field(max_length=MOST_FIELDS)


class ExtractValue(Shape):
    """How a mode finds the value in what is given: the first group of a pattern."""

    type: Literal["regex"]
    regex: Word


class LocatorMode(Shape):
    """A way to name a resource: out of a list, by id, by URL or by another text."""

    name: FieldName
    display_name: Word
    type: Literal["list", "string", "id", "url"] = "string"
    hint: Text | None = None
    placeholder: Text | None = None
    validation: list[Rule] = Field(default=[], max_length=20)
    extract_value: ExtractValue | None = None
    url: Text | None = None
    type_options: TypeOptions = TypeOptions()
    data_source: Source | None = None


class LocatorField(_Field):
    """A resource: `{mode, value}`."""

    type: Literal["resourceLocator"]
    modes: list[LocatorMode] = Field(min_length=1, max_length=20)


FormField = Annotated[
    PlainField | ChoiceField | CollectionField | FixedCollectionField | LocatorField, Field(discriminator="type")
]

Form = tuple[FormField, ...]

for _shape in (CollectionField, FieldGroup, FixedCollectionField):
    _shape.model_rebuild()
