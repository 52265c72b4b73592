"""``wazuh-comms keys``: the keys that sign agents' tokens, listed, changed in two steps, and revoked."""
