"""The supervisor: generations of workers, their processes, the hub and its messages. No service or store comes in."""
