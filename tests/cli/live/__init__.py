"""``wazuh-comms top``."""
