"""Policies of the plan, said in Temporal's terms."""

from collections.abc import Container
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy

from engine.nodes import ACTION_TIMEOUT
from engine.protocol import RunAction
from engine.steps import Retry

# Seconds that an attempt of a long action may take where its step does not say: it heartbeats meanwhile.
_LONG = 24 * 3600.0

# Without a sign of life for so long, an attempt has failed. One that says it is long gives the signs itself; of the
# others the worker gives them, so that what is missing then is the worker, or all that it runs is being held up.
_LONG_SILENCE = timedelta(seconds=10)
_SILENCE = timedelta(seconds=30)

# While a local activity pauses between attempts its workflow task stays open, and answers to updates wait for that, up
# to eight seconds. A longer pause than this is a timer instead: a few events more, while Postgres is away.
_PAUSED_INSIDE = timedelta(seconds=1)

# Local activities write a row or two. They are tried until Postgres answers: the run cannot go on without.
LOCAL: dict[str, Any] = {
    "local_retry_threshold": _PAUSED_INSIDE,
    "start_to_close_timeout": timedelta(seconds=20),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=200), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=10)
    ),
}

# What a run says of its own row must not hold up its end for ever: about a minute, then the reconciler puts it right.
ROW: dict[str, Any] = {
    "local_retry_threshold": _PAUSED_INSIDE,
    "start_to_close_timeout": timedelta(seconds=20),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=10),
        maximum_attempts=12,
    ),
}

# Rows that must be written, but that nobody waits for: a few times at once, and then, at no cost of events, for ever.
BRIEFLY: dict[str, Any] = {
    **ROW,
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=200), backoff_coefficient=2.0, maximum_attempts=3
    ),
}
INSISTING: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=20),
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(seconds=1), backoff_coefficient=1.5, maximum_interval=timedelta(seconds=30)
    ),
}


def action_options(command: RunAction, awaited: bool, long_actions: Container[str] = ()) -> dict[str, Any]:
    """Timeout, retries and cancellation of an action's activity, ordinary or local.

    With `awaited` a withdrawal is over when the attempt that runs has ended, however that ends.
    """
    length = command.timeout or (_LONG if command.action_key in long_actions else ACTION_TIMEOUT)
    types = workflow.ActivityCancellationType
    return {
        "start_to_close_timeout": timedelta(seconds=length),
        "retry_policy": retry_policy(command.retry),
        "cancellation_type": types.WAIT_CANCELLATION_COMPLETED if awaited else types.TRY_CANCEL,
    }


def heartbeat_timeout(action_key: str, awaited: bool, long_actions: Container[str]) -> timedelta | None:
    """The heartbeat timeout of an action's ordinary activity: an attempt hears of its withdrawal by its heartbeats."""
    if action_key in long_actions:
        return _LONG_SILENCE
    return _SILENCE if awaited else None


def retry_policy(retry: Retry) -> RetryPolicy:
    """Temporal's own policy; linear backoff and jitter, which it lacks, are asked for by the activity itself."""
    return RetryPolicy(
        initial_interval=timedelta(seconds=min(retry.initial_interval, retry.max_interval)),
        backoff_coefficient=retry.multiplier if retry.backoff == "exponential" else 1.0,
        maximum_interval=timedelta(seconds=retry.max_interval),
        maximum_attempts=retry.max_attempts,
        non_retryable_error_types=list(retry.non_retryable),
    )
