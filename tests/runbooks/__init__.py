"""The commands of docs/runbooks, run as they stand there on machines of their own."""
