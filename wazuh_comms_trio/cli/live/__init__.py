"""What `wazuh-comms top` shows: two snapshots of metrics become rates, and those a page."""
