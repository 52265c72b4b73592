"""What stands behind the services: Protocols (``interfaces``), the rules that all implementations share, these in a
folder each, and ``factory``, which opens one set of them. Imports ``http.client``, ``quarantine``, ``config`` and
``foundation``."""
