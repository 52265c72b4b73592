"""The section `communications_api.limits`: its models, and what follows from them where a limit isn't set."""
