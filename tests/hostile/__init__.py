"""Attacks without and with a stolen agent's token, small; `scripts/soak hostile` runs them in full."""
