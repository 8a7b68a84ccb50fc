"""JSON as the engine knows it, and the mark for "no value", which JSON itself cannot say."""

from typing import Final, Self

from typing_extensions import TypeAliasType

JSON = TypeAliasType("JSON", "bool | int | float | str | list[JSON] | dict[str, JSON] | None")


class Undefined:
    """The type of `UNDEFINED`: what an expression yields when there is nothing; unlike null it is not a value."""

    __slots__ = ()
    _only: "Undefined | None" = None

    def __new__(cls) -> Self:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only  # type: ignore[return-value] # there is one instance of one class

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __reduce__(self) -> str:
        return "UNDEFINED"


UNDEFINED: Final = Undefined()
