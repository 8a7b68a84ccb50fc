"""The workflow's time, as the engine has it."""

from temporalio import workflow


def now() -> int:
    """The workflow's time in milliseconds since the epoch."""
    return workflow.time_ns() // 1_000_000
