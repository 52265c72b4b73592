"""``wazuh-comms indexer init | check``: templates, mappings, and what is wrong with them."""
