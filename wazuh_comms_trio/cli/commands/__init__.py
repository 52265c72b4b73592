"""The commands of ``wazuh-comms``, a module each. What a command needs is imported when it runs."""
