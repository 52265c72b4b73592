"""The process that keeps several workers: generations of them, their processes, the hub where they meet, the link's
messages."""
