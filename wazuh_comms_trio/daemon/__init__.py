"""The composition root: one worker's tree, the process around it, and its logs."""
