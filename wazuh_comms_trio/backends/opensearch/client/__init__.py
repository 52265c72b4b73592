"""Requests to an OpenSearch cluster: nodes, bulk calls, searches, reads by id. Knows no agent and no command."""
