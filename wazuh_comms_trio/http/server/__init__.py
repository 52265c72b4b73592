"""Connections from accept to close under any ASGI application, and the application's side of ASGI. Knows configuration
and errors; no API and no service."""
