"""Filters of trigger subscriptions: which events start a workflow. docs/filters.md is the reference."""
