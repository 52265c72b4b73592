"""Whose connection it is when a load balancer made it: the PROXY protocol and ``X-Forwarded-For``. No I/O."""
