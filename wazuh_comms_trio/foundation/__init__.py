"""What knows nothing of agents, HTTP or stores: timers, logs of outages, caches, folders, log context. Imports
nothing of ours but ``errors``."""
