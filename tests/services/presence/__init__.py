"""When agents were heard last."""
