"""Every backend in memory, for tests on the mock clock; they pass the same contract suite as the real ones."""
