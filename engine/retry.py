"""How long to wait before an attempt is made again: one formula, for the driver's actions and the engine's children."""

import hashlib

from engine.steps import Retry


def pause_after(retry: Retry, attempt: int, seed: str) -> float:
    """Seconds to wait after failed attempt number `attempt` (the first is 1).

    The policy's `jitter` spreads the pause: 0.2 means up to a fifth shorter or longer, by a chance that is the same
    for the same seed and attempt.
    """
    match retry.backoff:
        case "exponential":
            exponent = min(attempt - 1, 64)
            pause = retry.initial_interval * retry.multiplier**exponent
        case "linear":
            pause = retry.initial_interval * attempt
        case "fixed":
            pause = retry.initial_interval
    spread = 1 + retry.jitter * (2 * _chance(f"{seed}/{attempt}") - 1)
    return min(pause, retry.max_interval) * spread


def _chance(seed: str) -> float:
    """A number in [0, 1) that depends on the seed alone."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6], "big") / 2**48
