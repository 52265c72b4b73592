"""One connection from accept to close, under any ASGI application. Knows configuration and errors, no route and no
service."""
