"""The state indices in the indexer, written in bulk, and the question whether they could be written to."""
