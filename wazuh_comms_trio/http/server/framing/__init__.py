"""A request's bytes as pure functions: its head, and where its body ends. No I/O."""
