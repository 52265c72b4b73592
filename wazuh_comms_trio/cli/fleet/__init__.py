"""`wazuh-comms simulate-fleet`: many agents against one node, known from outside alone: no store, no service."""
