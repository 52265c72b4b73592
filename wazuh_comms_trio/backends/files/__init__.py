"""The folder of files that agents may fetch."""
