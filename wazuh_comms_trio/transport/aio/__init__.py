"""Sockets, queues and request/answer streams for trio programs."""
