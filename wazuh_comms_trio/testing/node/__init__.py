"""The whole daemon, or a node of several workers, inside a test."""
