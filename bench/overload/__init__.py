"""Load above what a node can carry: the daemon held to a part of a core, and what its agents notice."""
