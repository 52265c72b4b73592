"""The two programs: ``wazuh-comms-apid``, the daemon, and ``wazuh-comms``, the operator's tool."""
