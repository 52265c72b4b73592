"""One worker: its tree of tasks, the process around it, its client of the hub. Services, stores and the API come in."""
