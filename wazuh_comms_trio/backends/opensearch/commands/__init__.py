"""The command store in the indexer, and how pending commands are found."""
