"""Tests of `wazuh-comms simulate-fleet`."""
