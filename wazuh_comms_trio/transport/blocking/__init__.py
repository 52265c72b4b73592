"""Sockets and queues for programs without an event loop. Never imports trio."""
