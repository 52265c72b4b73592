"""The agents' registry in the indexer, and who of them is away."""
