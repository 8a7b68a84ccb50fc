"""`@action`: a typed function becomes a registered action, its parameters' JSON Schema the action's form.

    @action("inventory.reserve")
    async def reserve(sku: str, count: int = 1) -> dict[str, object]: ...

The parameters are the function's own, typed as pydantic understands them; a parameter annotated `Call` is given what
is known of the call. A function raises `ActionFailure` when it fails in a way that users should see.
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

Handler = Callable[..., Awaitable[Any]]


class ActionFailure(Exception):
    """An action failed. `code` is stable and may be named in `nonRetryable`; `retryable` allows another attempt."""

    def __init__(self, code: str, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Suspend:
    """What an action returns that waits for somebody outside: its step waits until it is resumed, and the action is
    then called again, with `data` and what the resume brought in `Call.resumed`.
    """

    data: Any = None


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a suspended action is called again with: what it suspended itself with, and what the resume brought."""

    suspended: Any
    data: Any


@dataclass(frozen=True, slots=True)
class Call:
    """Which call this is. `idempotency_key` is the same for every attempt; `attempt` counts from 1."""

    idempotency_key: str
    execution_id: str
    template: str
    step_id: str
    attempt: int
    resumed: Resumed | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """A registered action: what workers run under `key`."""

    key: str
    handler: Handler
    parameters: type[BaseModel]
    description: str | None
    version: str
    call_argument: str | None
    whole_argument: str | None

    async def run(self, parameters: BaseModel, call: Call) -> Any:
        """Calls the function with parameters that have been validated."""
        if self.whole_argument is not None:
            given: dict[str, Any] = {self.whole_argument: parameters}
        else:
            given = {name: getattr(parameters, name) for name in type(parameters).model_fields}
        if self.call_argument is not None:
            given[self.call_argument] = call
        return await self.handler(**given)


def action(key: str, *, version: str = "1") -> Callable[[Handler], Action]:
    """Makes an async function an action under `key`; its docstring's first line describes it.

    Raises TypeError for a function that is not async or has a parameter without a type.
    """

    def decorate(handler: Handler) -> Action:
        if not inspect.iscoroutinefunction(handler):
            raise TypeError(f"action {key}: {handler.__qualname__} must be an async function")
        hints = get_type_hints(handler)
        signature = inspect.signature(handler)
        untyped = [name for name in signature.parameters if name not in hints]
        if untyped:
            raise TypeError(f"action {key}: parameters without a type: {', '.join(untyped)}")
        call_argument = next((name for name in signature.parameters if hints[name] is Call), None)
        names = [name for name in signature.parameters if name != call_argument]
        whole = _whole_model(names, hints)
        description = (inspect.getdoc(handler) or "").partition("\n")[0] or None
        return Action(
            key=key,
            handler=handler,
            parameters=hints[whole] if whole is not None else _model(key, names, hints, signature),
            description=description,
            version=version,
            call_argument=call_argument,
            whole_argument=whole,
        )

    return decorate


def _whole_model(names: list[str], hints: dict[str, Any]) -> str | None:
    """The one parameter that is a pydantic model and so stands for all of them."""
    if len(names) != 1:
        return None
    hint = hints[names[0]]
    return names[0] if isinstance(hint, type) and issubclass(hint, BaseModel) else None


def _model(key: str, names: list[str], hints: dict[str, Any], signature: inspect.Signature) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name in names:
        default = signature.parameters[name].default
        fields[name] = (hints[name], ... if default is inspect.Parameter.empty else default)
    return create_model(key.replace(".", "_"), __config__=ConfigDict(extra="forbid"), **fields)
