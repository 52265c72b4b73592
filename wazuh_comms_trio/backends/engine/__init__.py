"""The engine behind its Unix socket: a client on ``http.client``."""
