"""The HTTP APIs: routes, guards, limits of bodies and of time, and the one table that turns errors into replies."""
