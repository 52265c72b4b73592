"""Log records: their forms and where they go."""
