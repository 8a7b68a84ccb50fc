"""What is said when a value kept outside history cannot be stored or read."""

from typing import Literal

from temporalio.exceptions import ApplicationError

Code = Literal["PAYLOAD_STORE_UNAVAILABLE", "PAYLOAD_NOT_FOUND", "PAYLOAD_CORRUPT"]

# What no waiting brings back.
GONE: frozenset[str] = frozenset({"PAYLOAD_NOT_FOUND", "PAYLOAD_CORRUPT"})


class PayloadUnavailable(ApplicationError):
    """A stored value cannot be had now. Always retryable: a workflow task or an activity is tried again.

    It is Temporal's own kind of error because the SDK calls the drivers, and carries `code` to whoever waits.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message, type=code, non_retryable=False)
        self.code: Code = code
