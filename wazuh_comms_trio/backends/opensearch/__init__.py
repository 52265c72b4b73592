"""Agents, commands and states in an OpenSearch cluster (``backend: wazuh``)."""
