"""The REST API that agents speak: its ASGI application and its endpoints. Another dialect would be a folder beside
this one."""
