"""The write-ahead log of a SQLite file: whether all of it can be read, and when it is written back."""
