"""What takes minutes: many runs under fire, very long and very wide ones. `make soak`; no part of `make test`."""
