"""The HTTP edge: connections, limits, routes, and the one table that turns errors into replies."""
