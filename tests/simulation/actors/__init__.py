"""Who talks to the nodes: agents, honest and hostile, an operator with the tool, and a local program that posts."""
