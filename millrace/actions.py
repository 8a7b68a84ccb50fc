"""`@action`: a typed function becomes a registered action, its parameters' JSON Schema the action's form.

    @action("inventory.reserve")
    async def reserve(sku: str, count: int = 1) -> dict[str, object]: ...

The parameters are the function's own, typed as pydantic understands them; a parameter annotated `Call` is given what
is known of the call. A function raises `ActionFailure` when it fails in a way that users should see.

    @action("prices.look_up", idempotent=True, expected_duration=0.2)
    async def look_up(sku: str) -> float: ...

An action that may be repeated safely and takes a second or less runs beside the workflow, without a trip to the server
and back for each step; see `Action.runs_locally`.
"""

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

Handler = Callable[..., Awaitable[Any]]

# Seconds. What is expected to take longer would hold up the workflow task that waits for it, and with it every signal,
# answer and cancel of the same run.
LONGEST_LOCAL = 1.0


class ActionFailure(Exception):
    """An action failed. `code` is stable and may be named in `nonRetryable`; `retryable` allows another attempt."""

    def __init__(self, code: str, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = retryable


def _nobody_listens(*_: Any) -> None:
    """What a heartbeat does where nobody waits for one."""


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
    beat: Callable[..., None] = field(default=_nobody_listens, repr=False, compare=False)

    def heartbeat(self, *details: Any) -> None:
        """Says that the action is alive, and hears of a cancel: an action declared `long` must say so every 10 s.

        `details` are JSON, shown by Temporal. Elsewhere it does nothing worth mentioning and may always be called.
        """
        self.beat(*details)


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
    idempotent: bool = False
    expected_duration: float | None = None
    long: bool = False

    @property
    def runs_locally(self) -> bool:
        """Whether its steps run as local activities: it may be repeated and is expected to take a second at most."""
        short = self.expected_duration is not None and self.expected_duration <= LONGEST_LOCAL
        return self.idempotent and short and not self.long

    @property
    def policies(self) -> dict[str, Any]:
        """What it declares, and what follows for its steps, as the registry shows it; durations in seconds."""
        return {
            "idempotent": self.idempotent,
            "expectedDuration": self.expected_duration,
            "long": self.long,
            "local": self.runs_locally,
        }

    async def run(self, parameters: BaseModel, call: Call) -> Any:
        """Calls the function with parameters that have been validated."""
        if self.whole_argument is not None:
            given: dict[str, Any] = {self.whole_argument: parameters}
        else:
            given = {name: getattr(parameters, name) for name in type(parameters).model_fields}
        if self.call_argument is not None:
            given[self.call_argument] = call
        return await self.handler(**given)


def action(
    key: str,
    *,
    version: str = "1",
    idempotent: bool = False,
    expected_duration: float | None = None,
    long: bool = False,
) -> Callable[[Handler], Action]:
    """Makes an async function an action under `key`; its docstring's first line describes it.

    `idempotent` says that a repetition with the same `Call.idempotency_key` does no harm; `expected_duration` is what
    one attempt usually takes, in seconds; `long` says that it heartbeats and may take longer than 300 s.
    Raises TypeError for a function that is not async or has a parameter without a type, ValueError for an expected
    duration that is none.
    """
    if expected_duration is not None and not (math.isfinite(expected_duration) and expected_duration > 0):
        raise ValueError(f"action {key}: the expected duration is a number of seconds above 0, not {expected_duration}")

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
            idempotent=idempotent,
            expected_duration=expected_duration,
            long=long,
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
