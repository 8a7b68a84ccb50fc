"""The thin side of the border: Temporal workflows that perform what the engine commands."""
