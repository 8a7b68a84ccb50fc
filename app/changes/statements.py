"""SQL that is put together: names and texts for statements that take no parameters."""

from typing import Final

# Milliseconds that a change of a table may wait for others to let go of it; who comes later waits behind it.
LOCK_WITHIN: Final = 3_000


def quoted(*names: str) -> str:
    """Identifiers as SQL has them: `"public"."orders"`."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(text: str) -> str:
    """A text constant for statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"
