"""A node behind load balancers: drained, stopped, and reached through the real programs."""
