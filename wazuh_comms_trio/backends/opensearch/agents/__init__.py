"""The agents' registry in the indexer, and which of them are away."""
