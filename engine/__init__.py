"""The pure core: a definition becomes a plan, a plan and an event become the next state and commands."""
