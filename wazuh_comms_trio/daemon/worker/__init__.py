"""One worker: its tree of tasks, the process around it, its end of the hub's link."""
