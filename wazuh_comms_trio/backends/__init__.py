"""What stands behind the daemon: Protocols (``base``), their implementations, and ``factory``, which opens one set of
them."""
