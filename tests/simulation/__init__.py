"""The simulator: agents, balancer, nodes of several workers and their stores in one ``trio.run`` on the mock clock,
from one seed. ``scripts/simulate`` runs it; docs/simulation.md says what it does, checks and can't see."""
