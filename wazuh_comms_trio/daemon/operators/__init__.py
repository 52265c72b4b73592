"""The process of the operators' listener: what it serves it asks of the node over its link, and it knows nothing
else."""
