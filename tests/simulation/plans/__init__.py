"""What a seed decides: how big its world is, its limits and features, and which faults come when."""
