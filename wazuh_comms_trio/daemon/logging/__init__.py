"""Log records: their forms and where they go. Only the configuration and the log's context come in."""
