"""The command store in the indexer: how pending commands are found, claimed and delivered by several nodes."""
