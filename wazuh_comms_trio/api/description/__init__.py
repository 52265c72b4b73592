"""The HTTP APIs on paper: their operations, made into an OpenAPI document and a page. Nothing is served here."""
