"""The engine behind its Unix socket."""
