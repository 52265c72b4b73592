"""HTTP/1.1 connections as a client. Knows errors and ``foundation``, no configuration: the callers hand in numbers."""
