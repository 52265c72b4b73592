"""The supervisor of several workers: generations, processes, the hub and its messages. No service and no store come in."""
