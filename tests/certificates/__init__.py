"""Agents' certificates: whom they name, and which of them were revoked."""
