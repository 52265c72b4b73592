"""What stands behind the nodes: memory stores that they share, or the real embedded ones of one node."""
