"""Agents, commands and states in an OpenSearch cluster (``backend: wazuh``): a folder each, on the requests of
``client``; ``stores`` opens all of them."""
