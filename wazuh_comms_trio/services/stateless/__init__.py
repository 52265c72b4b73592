"""Stateless events: a body goes to the engine as it came."""
