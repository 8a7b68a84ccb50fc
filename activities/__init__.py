"""All I/O of a run: actions, and the few writes that a run makes to Postgres."""
