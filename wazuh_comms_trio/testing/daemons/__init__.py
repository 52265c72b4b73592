"""Fakes of the classic daemons and their queues."""
