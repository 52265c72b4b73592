"""An agent: single requests, and the whole program with its loops."""
